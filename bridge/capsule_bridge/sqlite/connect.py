"""Connections to the database: one that writes, and one that only reads."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Literal

from capsule_bridge.sqlite.schema import check, migrate
from capsule_protocol.errors import StoreError

if TYPE_CHECKING:
    from pathlib import Path

Level = Literal["power", "process"]

BUSY_SECONDS = 5.0
"""How long to wait for a lock of SQLite's own; only a tool that looks into the file could hold one."""
JOURNAL_BYTES = 64 * 2**20
"""What the write-ahead log is cut down to once it has been larger."""

LOG_BYTES = 8 * 2**20
"""Length of the log. Once about so much is in it, it is copied into the database, and begins at its beginning again."""

# SQLite syncs the log at each commit with FULL, and with NORMAL only before a checkpoint.
_SYNCHRONOUS: dict[Level, tuple[str, int]] = {"power": ("FULL", 2), "process": ("NORMAL", 1)}


def refuse_foreign(path: Path) -> None:
    """Raises StoreError, `store_refused`, if the file is no store that this version can use.

    For whoever is about to make files beside it: this makes none. If nobody can have the database open, not even those
    of SQLite, which makes them for whoever reads a database of another program that has a log. What cannot be read as
    it is says nothing: a power cut may have left it so, and whoever writes to it repairs it.
    """
    log, lock, journal = (path.with_name(path.name + end) for end in ("-wal", ".lock", "-journal"))
    if not path.is_file() or not path.stat().st_size or journal.exists():
        return
    alone = not (lock.exists() or (log.exists() and log.stat().st_size))
    with suppress(sqlite3.Error), closing(_open(path, "ro&immutable=1" if alone else "ro")) as connection:
        connection.execute("PRAGMA writable_schema = ON")  # else a file that was cut short could not be asked
        check(connection, path)


def open_writer(path: Path, level: Level) -> sqlite3.Connection:
    """The one connection that writes and checkpoints, to a database of the newest schema.

    SQLite before 3.51.3 can spoil a file if two connections write or checkpoint at the same moment ("WAL-reset bug").
    So there is never a second one: the lock keeps out other processes, and readers are read-only.
    """
    connection = _open(path, "rwc")
    try:
        check(connection, path)  # before the first byte of it is changed
        _set_up(connection, path, level)
        migrate(connection)
        if level == "power":
            _lengthen_log(path)
    except BaseException:
        connection.close()
        raise
    return connection


def _set_up(connection: sqlite3.Connection, path: Path, level: Level) -> None:
    name, number = _SYNCHRONOUS[level]
    connection.execute(f"PRAGMA synchronous = {name}")
    connection.execute("PRAGMA wal_autocheckpoint = 0")  # the writer does it between batches
    connection.execute(f"PRAGMA journal_size_limit = {JOURNAL_BYTES}")
    mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal" or connection.execute("PRAGMA synchronous").fetchone()[0] != number:
        # Asked for one guarantee and given another: that must not pass unseen.
        raise StoreError("store_refused", f"{path} cannot be used with a write-ahead log (mode {mode!r})")


def _lengthen_log(path: Path) -> None:
    """Give the log the length that it will have, so that a commit has nothing to sync but what it wrote.

    While a file grows, its new length and place have to be synced as well: a third of a commit's time (measured with
    ext4). Behind the commits that a log has, SQLite takes zeros for its end.
    """
    # Without it commits are slower. Where the disk is full, nothing of its rest is taken.
    with suppress(OSError), path.with_name(f"{path.name}-wal").open("ab") as log:
        length = log.tell()
        try:
            log.write(bytes(max(0, LOG_BYTES - length)))
            os.fsync(log.fileno())
        except OSError:
            os.ftruncate(log.fileno(), length)


def open_reader(path: Path) -> sqlite3.Connection:
    """A connection that sees what is committed. Read-only, so that it does not checkpoint when it is closed, either."""
    return _open(path, "ro")


def _open(path: Path, mode: str) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    # Opened by one thread, used by another, closed by a third if all goes wrong; never by two at a time.
    return sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
