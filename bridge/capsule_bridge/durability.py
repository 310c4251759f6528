"""What an answer is worth: the levels of durability, and the store of each."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from capsule_bridge.memory import MemoryStore
from capsule_bridge.sqlite import SqliteStore
from capsule_protocol.errors import ArgumentError

if TYPE_CHECKING:
    from capsule_bridge.store import PromiseStore

Durability = Literal["power", "process", "none"]
"""What an acknowledged fact outlives: a power cut; the death of the node's process; nothing."""


def open_store(durability: Durability, path: str | Path | None = None) -> PromiseStore:
    """The store of this level; `path` is its file, and only `none` has none.

    Raises StoreError: `store_locked`, `store_refused`, `store_unavailable`.
    """
    if durability not in get_args(Durability):
        raise ArgumentError("durability", f"no such level: {durability!r}", allowed=", ".join(get_args(Durability)))
    if durability == "none":
        return MemoryStore()
    if path is None:
        raise ArgumentError("path", f"level {durability!r} keeps promises in a file, and none was named")
    return SqliteStore(Path(path), durability)
