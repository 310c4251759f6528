"""`capsule store compact`: forget what is old, and give the room back to the disk."""

from __future__ import annotations

import os
import sqlite3
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from capsule_bridge.sqlite import operations
from capsule_bridge.sqlite.connect import open_reader, open_writer, refuse_foreign
from capsule_bridge.sqlite.damage import store_error
from capsule_bridge.sqlite.faults import no_fault
from capsule_bridge.sqlite.files import Blobs, Lock, values_path
from capsule_bridge.sqlite.rows import Rows
from capsule_bridge.sqlite.tools.info import Sizes, sizes
from capsule_bridge.sqlite.tools.opening import store_file
from capsule_bridge.store import PAGE
from capsule_protocol.errors import StoreError

if TYPE_CHECKING:
    from capsule_bridge.records import Retention


_HINT = "Correct the cause that the message names, and compact it again: what was forgotten until then stays forgotten."


@dataclass(frozen=True, slots=True)
class Compacted:
    """What was done: how many promises timed out, how many were forgotten, and the sizes before and after."""

    timed_out: int
    forgotten: int
    before: Sizes
    after: Sizes


def compact(path: Path, *, now: int, retention: Retention) -> Compacted:
    """Compact a store that no node uses; a schema of before is brought to the newest first.

    Raises StoreError: `store_locked`, `store_refused`; `store_unavailable`, also if there is not enough room for it:
    then nothing was changed.
    """
    path = store_file(path)
    lock = Lock(path, "compact")
    try:
        refuse_foreign(path)
        lock.acquire()
        _check_room(path)
        blobs = Blobs(values_path(path), no_fault)
        blobs.create()
        with closing(open_writer(path, "power")) as connection:
            before = sizes(path)
            timed_out, forgotten = _expire(Rows(connection, blobs), blobs, now, retention)
            connection.execute("VACUUM")
            # All goes into the database, so that nothing but it has to be kept or copied.
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            return Compacted(timed_out, forgotten, before, sizes(path))
    except (OSError, sqlite3.Error) as error:
        what = f"the store {path} cannot be compacted, for which it needs as much room again, in TMPDIR too"
        told = store_error(error, what)
        raise StoreError(told.code, told.message, hint=_HINT if told.code == "store_unavailable" else None) from error
    finally:
        lock.release()


def _check_room(path: Path) -> None:
    """Raises StoreError if the disk has no room for what SQLite writes: all of it to its own directory, and to the log.

    Before anything is forgotten, because that is committed first.
    """
    with closing(open_reader(path)) as connection:
        page, pages, free = (
            connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_size", "page_count", "freelist_count")
        )
    size, needed = page * (pages - free), Counter[int]()
    for folder in (path.parent, _temporary()):
        needed[folder.stat().st_dev] += size
        status = os.statvfs(folder)
        room = status.f_bavail * status.f_frsize
        if room < needed[folder.stat().st_dev]:
            text = f"the store {path} cannot be compacted, and was left as it is: that takes {size:,} bytes there and"
            text += f" {size:,} in {_temporary()}, and {folder} has {room:,}"
            raise StoreError("store_unavailable", text, hint="Make room, or name a directory that has it in TMPDIR.")


def _temporary() -> Path:
    """Where SQLite puts what it needs for a while."""
    named = (os.environ.get("SQLITE_TMPDIR"), os.environ.get("TMPDIR"), "/var/tmp", "/usr/tmp", "/tmp")  # noqa: S108  its list
    usable = (Path(name) for name in named if name and os.access(name, os.W_OK | os.X_OK))
    return next((folder for folder in usable if folder.is_dir()), Path())


def _expire(rows: Rows, blobs: Blobs, now: int, retention: Retention) -> tuple[int, int]:
    """A page at a time, each a transaction; files go after their rows."""
    timed_out = forgotten = 0
    more = True
    while more:
        rows.connection.execute("BEGIN IMMEDIATE")
        done = operations.expire(rows, now, retention, PAGE)
        rows.write()
        rows.connection.execute("COMMIT")
        blobs.remove(rows.dropped)
        rows.dropped.clear()
        timed_out, forgotten, more = timed_out + len(done.timed_out), forgotten + len(done.forgotten), done.more
    blobs.remove_others(name for (name,) in rows.all("all_files"))
    return timed_out, forgotten
