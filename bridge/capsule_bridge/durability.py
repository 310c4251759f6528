"""What an answer is worth: the levels of durability, and the store of each."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from capsule_bridge.memory import MemoryStore
from capsule_bridge.sqlite import SqliteStore
from capsule_protocol.errors import ArgumentError, StoreError

if TYPE_CHECKING:
    from capsule_bridge.store import PromiseStore

Durability = Literal["power", "process", "none"]
"""What an acknowledged fact outlives: a power cut; the death of the node's process; nothing."""


URLS = ("postgresql://", "postgres://")
"""What the name of a store begins with if it is a database that several nodes may share."""


def open_store(durability: Durability, path: str | Path | None = None) -> PromiseStore:
    """The store of this level; `path` is its file, or the URL of its database, and only `none` has none.

    Raises StoreError: `store_locked`, `store_refused`, `store_unavailable`.
    """
    if durability not in get_args(Durability):
        raise ArgumentError("durability", f"no such level: {durability!r}", allowed=", ".join(get_args(Durability)))
    if durability == "none":
        return MemoryStore()
    if path is None:
        raise ArgumentError("path", f"level {durability!r} keeps promises in a file or a database, and none was named")
    if isinstance(path, str) and path.startswith(URLS):
        return _open_database(durability, path)
    return SqliteStore(Path(path), durability)


def _open_database(durability: Durability, url: str) -> PromiseStore:
    if durability != "power":
        raise ArgumentError("durability", f"a database has no level {durability!r}", allowed="power")
    try:
        from capsule_bridge.postgres import PostgresStore
    except ModuleNotFoundError as error:
        if error.name != "asyncpg":
            raise
        hint = 'Install it: pip install "capsule-exec[postgres]".'
        raise StoreError("store_refused", "a store in PostgreSQL needs the package asyncpg", hint=hint) from error
    return PostgresStore(url)
