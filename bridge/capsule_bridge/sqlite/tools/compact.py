"""`capsule store compact`: forget what is old, and give the room back to the disk."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from capsule_bridge.sqlite import operations
from capsule_bridge.sqlite.connect import open_writer
from capsule_bridge.sqlite.damage import store_error
from capsule_bridge.sqlite.faults import no_fault
from capsule_bridge.sqlite.files import Blobs, Lock, values_path
from capsule_bridge.sqlite.rows import Rows
from capsule_bridge.sqlite.tools.info import Sizes, sizes
from capsule_bridge.sqlite.tools.opening import store_file
from capsule_bridge.store import PAGE

if TYPE_CHECKING:
    from pathlib import Path

    from capsule_bridge.records import Retention


@dataclass(frozen=True, slots=True)
class Compacted:
    """What was done: how many promises timed out, how many were forgotten, and the sizes before and after."""

    timed_out: int
    forgotten: int
    before: Sizes
    after: Sizes


def compact(path: Path, *, now: int, retention: Retention) -> Compacted:
    """Compact a store that no node uses; a schema of before is brought to the newest first.

    Raises StoreError: `store_locked`, `store_refused`, `store_unavailable`.
    """
    path = store_file(path)
    lock = Lock(path, "compact")
    try:
        lock.acquire()
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
        raise store_error(error, what) from error
    finally:
        lock.release()


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
