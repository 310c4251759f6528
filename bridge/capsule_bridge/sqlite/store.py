"""`SqliteStore`: the asyncio face of the writer and the reader."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from capsule_bridge import rules
from capsule_bridge.sqlite import operations
from capsule_bridge.sqlite.connect import Level, open_reader, open_writer, refuse_foreign
from capsule_bridge.sqlite.damage import Examination, store_error, unclean
from capsule_bridge.sqlite.doorbell import Doorbells
from capsule_bridge.sqlite.faults import no_fault
from capsule_bridge.sqlite.files import Blobs, Lock, identity, make_directory, real_path, sync_directory, values_path
from capsule_bridge.sqlite.reader import Reader
from capsule_bridge.sqlite.rows import Rows
from capsule_bridge.sqlite.writer import Job, Writer
from capsule_bridge.store import PAGE
from capsule_protocol.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from capsule_bridge.records import (
        Claim,
        Created,
        Expired,
        Fence,
        Log,
        NewPromise,
        Promise,
        Retention,
        Settled,
        Settlement,
        Started,
    )
    from capsule_bridge.sqlite.faults import Fault

T = TypeVar("T")


class SqliteStore:
    """A `PromiseStore` in the file `path`, with `path.lock`, and large values in the directory `path.values`.

    They are beside the file itself, also if `path` is a link to it; a file with several hard links is refused. Opening
    blocks for some milliseconds. Raises StoreError: `store_locked`, `store_refused`, `store_unavailable`,
    `store_damaged`. After an unclean end the whole file is looked at meanwhile; once that finds damage nothing more
    is written.
    """

    def __init__(self, path: Path, durability: Level = "power", *, fault: Fault = no_fault) -> None:
        path = self._path = real_path(path)
        self._name = os.fspath(path)
        self._level = durability
        self._lock = Lock(path, durability)
        self._blobs = Blobs(values_path(path), fault)
        self._identity: tuple[int, int] | None = None
        self._bells = Doorbells()
        self._guard = threading.Lock()
        self._closer = ThreadPoolExecutor(1, thread_name_prefix="capsule-store-closer")
        self._closing: Future[None] | None = None
        try:
            refuse_foreign(path)
            make_directory(path.parent)
            self._lock.acquire()
            left = unclean(path)
            self._prepare()
            self._writer = Writer(self._connect, self._check_files, self._blobs, fault)
        except BaseException as error:
            self._lock.release()
            if isinstance(error, OSError | sqlite3.Error):
                raise store_error(error, f"the store {path} cannot be opened") from error
            raise
        self.examination = Examination(path) if left else None
        self._reader = Reader(lambda: Rows(open_reader(self._path), self._blobs))

    @property
    def failure(self) -> Exception | None:
        """Why nothing can be written: the last transaction failed, or the file was found to be damaged.

        None as soon as a transaction has been committed again.
        """
        return self._damage or self._writer.failure

    @property
    def _damage(self) -> StoreError | None:
        return None if self.examination is None else self.examination.found

    async def create(self, new: NewPromise, *, now: int) -> Created:
        """As `PromiseStore.create`."""
        return await self._write(lambda rows: operations.create(rows, new, now), len(new.param))

    async def start(
        self,
        id: str,  # noqa: A002
        *,
        epoch: int,
        now: int,
        again: bool = True,
        claim: Claim | None = None,
    ) -> Started:
        """As `PromiseStore.start`."""
        return await self._write(lambda rows: operations.start(rows, id, epoch, now, again, claim))

    async def settle(self, *settlements: Settlement, now: int) -> list[Settled]:
        """As `PromiseStore.settle`."""
        size = sum(len(each.value) for each in settlements)
        urgent = any(each.action == "cancel" for each in settlements)
        return await self._write(lambda rows: operations.settle(rows, settlements, now), size, urgent=urgent)

    async def append(
        self,
        id: str,  # noqa: A002
        events: Sequence[bytes],
        *,
        after: int,
        fence: Fence | None = None,
    ) -> int:
        """As `PromiseStore.append`."""
        kept = tuple(events)  # the caller may go on with its list
        return await self._write(lambda rows: operations.append(rows, id, kept, after, fence), sum(map(len, kept)))

    async def trim(self, id: str, upto: int) -> None:  # noqa: A002
        """As `PromiseStore.trim`."""
        await self._write(lambda rows: operations.trim(rows, id, upto))

    async def get(self, id: str, *, now: int) -> Promise:  # noqa: A002
        """As `PromiseStore.get`."""
        promise = (await self._read(lambda rows: operations.find(rows, id))).promise
        if not rules.is_due(promise, now):
            return promise
        # To tell of a time-out is to give a verdict, so it is committed first.
        return await self._write(lambda rows: operations.look(rows, id, now))

    async def read(self, id: str, *, after: int, limit: int = PAGE) -> Log:  # noqa: A002
        """As `PromiseStore.read`."""
        return await self._read(lambda rows: operations.read(rows, id, after, limit))

    async def pending(
        self, *, now: int, session: str | None = None, after: str = "", limit: int = PAGE
    ) -> list[Promise]:
        """As `PromiseStore.pending`."""
        return await self._read(lambda rows: operations.pending(rows, now, session, after, limit))

    async def salvage(self, *, now: int, after: str = "") -> tuple[list[Promise], list[Promise]]:
        """As `Salvaging.salvage`."""
        return await self._read(lambda rows: operations.salvage(rows, now, after))

    async def expire(self, *, now: int, retention: Retention, limit: int = PAGE) -> Expired:
        """As `PromiseStore.expire`."""
        return await self._write(lambda rows: operations.expire(rows, now, retention, limit))

    async def close(self) -> None:
        """As `PromiseStore.close`."""
        with self._guard:
            if self._closing is None:
                self._closing = self._closer.submit(self._stop)
                self._closer.shutdown(wait=False)
        # Whoever closes it may be canceled; the closing goes on.
        await asyncio.shield(asyncio.wrap_future(self._closing))

    async def _write(self, run: Callable[[Rows], T], size: int = 0, *, urgent: bool = False) -> T:
        """What the operation answers, after its commit."""
        if (damage := self._damage) is not None:
            raise StoreError(damage.code, damage.message)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        with self._guard:  # nothing may be queued behind the last job
            self._check_open()
            self._writer.submit(Job(run, size, self._bells.of(loop), future, urgent))
        answer: T = await future
        return answer

    async def _read(self, ask: Callable[[Rows], T]) -> T:
        self._check_open()
        return await self._reader.run(ask)

    def _check_open(self) -> None:
        if self._closing is not None:
            raise StoreError("store_closed", "the store has been closed")

    def _prepare(self) -> None:
        """The files that SQLite does not make, or would make for everybody to read."""
        os.close(os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
        self._blobs.create()
        sync_directory(self._path.parent)

    def _connect(self) -> Rows:
        rows = Rows(open_writer(self._path, self._level), self._blobs)
        if self._identity is None:
            self._identity = identity(self._name)
            self._blobs.remove_others(name for (name,) in rows.all("all_files"))
        return rows

    def _check_files(self) -> None:
        """Before each transaction. Raises StoreError if the lock, or the file that it is for, is not ours any more."""
        if not self._lock.held():
            self._lock.acquire()
        # By name: a descriptor of one's own on the file would, when closed, take away the locks of SQLite.
        if identity(self._name) != self._identity:
            raise StoreError("store_unavailable", f"{self._path} was removed or replaced by another file")

    def _stop(self) -> None:
        if self.examination is not None:
            self.examination.stop()
        self._reader.stop()
        self._writer.stop()
        self._bells.close()
        self._lock.release()
