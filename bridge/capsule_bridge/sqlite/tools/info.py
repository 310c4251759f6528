"""`capsule store info`: what a store holds, and how large it is."""

from __future__ import annotations

import os
import sqlite3
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

from capsule_bridge.sqlite.files import values_path
from capsule_bridge.sqlite.tools.opening import reading, sql
from capsule_bridge.sqlite.tools.owner import owner_of
from capsule_bridge.states import PENDING, State

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Sizes:
    """Bytes on the disk: `free` is that part of the database which holds nothing, and which compacting gives back."""

    database: int
    free: int
    log: int
    values: int
    value_files: int

    @property
    def total(self) -> int:
        """All files together."""
        return self.database + self.log + self.values


@dataclass(frozen=True, slots=True)
class StoreInfo:
    """A store at one moment.

    `process` and `use`: who has it open, and at which level of durability; empty if nobody has, or if it is not known.
    `oldest_pending`: milliseconds since the oldest promise without a verdict was made; None without any.
    """

    path: str
    schema: int
    sqlite: str
    process: str
    use: str
    promises: Mapping[State, int]
    oldest_pending: int | None
    events: int
    tombstones: int
    sizes: Sizes

    @property
    def pending(self) -> int:
        """Promises that have no verdict."""
        return self.promises[PENDING]


def info(path: Path, *, now: int) -> StoreInfo:
    """Look at the store. Raises StoreError: `store_refused`, `store_unavailable`."""
    with reading(path) as (connection, file):
        connection.execute("BEGIN")  # all numbers of the same moment
        states = dict(connection.execute(sql("states")).fetchall())
        oldest = _number(connection, sql("oldest_pending"))
        owner = owner_of(file)
        return StoreInfo(
            path=os.fspath(path),
            schema=_number(connection, "PRAGMA user_version") or 0,
            sqlite=sqlite3.sqlite_version,
            process=owner.process if owner else "",
            use=owner.use if owner else "",
            promises={state: states.get(state, 0) for state in get_args(State)},
            oldest_pending=None if oldest is None else max(0, now - oldest),
            events=_number(connection, sql("count_events")) or 0,
            tombstones=_number(connection, sql("count_tombstones")) or 0,
            sizes=_sizes(connection, file),
        )


def sizes(path: Path) -> Sizes:
    """How large a store is. Raises as `info`."""
    with reading(path) as (connection, file):
        return _sizes(connection, file)


def _sizes(connection: sqlite3.Connection, path: Path) -> Sizes:
    page, free = (_number(connection, f"PRAGMA {name}") or 0 for name in ("page_size", "freelist_count"))
    number, values = 0, 0
    with suppress(FileNotFoundError), os.scandir(values_path(path)) as found:
        for file in found:
            with suppress(FileNotFoundError):  # its promise was forgotten a moment ago
                values += file.stat().st_size
                number += 1
    log = path.with_name(f"{path.name}-wal")
    return Sizes(path.stat().st_size, page * free, log.stat().st_size if log.exists() else 0, values, number)


def _number(connection: sqlite3.Connection, query: str) -> int | None:
    found: int | None = connection.execute(query).fetchone()[0]
    return found
