"""What tests of stores share: requests, and stores to try."""

from __future__ import annotations

import asyncio
import os
import resource
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pytest

from capsule_bench.database import NoServerError, Server, server
from capsule_bridge import MemoryStore, NewPromise, PromiseStore, SqliteStore
from capsule_bridge.sqlite.connect import Level
from capsule_bridge.sqlite.faults import FaultPoint

KINDS = ["memory", "sqlite-process", "sqlite-power", "postgres"]
LARGE = b"\x00large\xff" * 20_000
"""A value that does not fit into a row."""
PATIENCE = 30.0
UNTIL_THE_END = ExitStack()
"""What all tests share; conftest.py ends it."""


def new(id: str, **fields: Any) -> NewPromise:
    """A request; unless told otherwise all are alike."""
    return NewPromise(**{"id": id, "kind": "execute", "session": "s", "fingerprint": b"same", **fields})


def open_kind(kind: str, folder: Path) -> PromiseStore:
    """A store of the kind; again, with what is there, unless it is kept in memory."""
    if kind == "memory":
        return MemoryStore()
    if kind == "postgres":
        from capsule_bridge.postgres import PostgresStore

        return PostgresStore(postgres().url(), schema=schema_of(folder))
    return SqliteStore(folder / "store.db", "power" if kind == "sqlite-power" else "process")


def schema_of(folder: Path) -> str:
    """Where the store of this directory is within the one database of all tests."""
    return f"t{blake2b(os.fsencode(folder), digest_size=8).hexdigest()}"


def postgres() -> Server:
    """The server for all tests that only need one, started when the first of them asks. Skips if there is none."""
    try:
        return _postgres()
    except NoServerError as error:
        pytest.skip(str(error))


@cache
def _postgres() -> Server:
    return UNTIL_THE_END.enter_context(server("max_connections=200"))


@contextmanager
def file_sizes_up_to(limit: int) -> Iterator[None]:
    """Meanwhile no file of this process grows beyond the limit: to SQLite that is a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@asynccontextmanager
async def opened(path: Path, level: Level = "process", **options: object) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(path, level, **options)  # type: ignore[arg-type]
    try:
        yield store
    finally:
        await store.close()


class Gate:
    """A fault point at which the writer waits; it counts the points it passes."""

    def __init__(self, point: FaultPoint) -> None:
        self.passed: Counter[str] = Counter()
        self._point = point
        self._reached, self._free = threading.Event(), threading.Event()

    def __call__(self, point: FaultPoint) -> None:
        self.passed[point] += 1
        if point == self._point:
            self._reached.set()
            assert self._free.wait(PATIENCE)

    async def reached(self) -> None:
        assert await asyncio.to_thread(self._reached.wait, PATIENCE)

    def open(self) -> None:
        self._free.set()


def files_of(path: Path) -> list[str]:
    """Names of the files that a store has for large values."""
    return sorted(file.name for file in path.with_name(f"{path.name}.values").iterdir())
