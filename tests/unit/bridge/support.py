"""What tests of stores share: requests, and stores to try."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from capsule_bridge import MemoryStore, NewPromise, PromiseStore, SqliteStore

KINDS = ["memory", "sqlite-process", "sqlite-power"]
LARGE = b"\x00large\xff" * 20_000
"""A value that does not fit into a row."""


def new(id: str, **fields: Any) -> NewPromise:
    """A request; unless told otherwise all are alike."""
    return NewPromise(**{"id": id, "kind": "execute", "session": "s", "fingerprint": b"same", **fields})


def open_kind(kind: str, folder: Path) -> PromiseStore:
    """A store of the kind; again, with what is there, if it is kept in files."""
    if kind == "memory":
        return MemoryStore()
    return SqliteStore(folder / "store.db", "power" if kind == "sqlite-power" else "process")


@contextmanager
def file_sizes_up_to(limit: int) -> Iterator[None]:
    """Meanwhile no file of this process grows beyond the limit: to SQLite that is a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
