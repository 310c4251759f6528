"""`PostgresStore`: the face of writer, reader and listener, for callers in any event loop."""

from __future__ import annotations

import asyncio
import threading
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from capsule_bridge import rules
from capsule_bridge.postgres import operations
from capsule_bridge.postgres.connect import Database
from capsule_bridge.postgres.held import key_of
from capsule_bridge.postgres.jobs import Call, Job, Sweep, Wants
from capsule_bridge.postgres.listener import Listener, Subscription
from capsule_bridge.postgres.loop import StoreLoop
from capsule_bridge.postgres.reader import Reader
from capsule_bridge.postgres.writer import Writer
from capsule_bridge.store import PAGE
from capsule_protocol.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Coroutine, Sequence
    from concurrent.futures import Future

    from capsule_bridge.postgres.held import Held
    from capsule_bridge.records import (
        Claim,
        Created,
        Expired,
        Fence,
        Lease,
        Log,
        NewPromise,
        Promise,
        Retention,
        Settled,
        Settlement,
        Started,
    )

T = TypeVar("T")


class PostgresStore:
    """A `PromiseStore`, `Watched` and `Leases`, in the tables of `schema` in the database at `url`.

    Opening it blocks until the database has answered, and makes the tables if they are not there. Raises StoreError:
    `store_refused`, `store_unavailable`.
    """

    def __init__(self, url: str, *, schema: str = "capsule") -> None:
        self._database = Database(url, schema)
        self._guard = threading.Lock()
        self._closing: Future[None] | None = None
        self._loop = StoreLoop()
        try:
            self._loop.submit(self._begin()).result()
        except BaseException:
            self._loop.end()
            self._loop.join()
            raise

    @property
    def failure(self) -> Exception | None:
        """Why the last transaction failed; None as soon as one has been committed again."""
        return self._writer.failure

    async def create(self, new: NewPromise, *, now: int) -> Created:
        """As `PromiseStore.create`."""
        ids = (new.id,) if new.parent is None else (new.id, new.parent)
        wants = Wants(ids, key_of(new), now=now, also=_claimed(new.claim))
        size = len(new.param) + sum(map(len, new.log))
        return await self._write(wants, lambda held: operations.create(held, new, now), size)

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
        wants = Wants((id,), now=now, also=_claimed(claim))
        return await self._write(wants, lambda held: operations.start(held, id, epoch, now, again, claim))

    async def settle(self, *settlements: Settlement, now: int) -> list[Settled]:
        """As `PromiseStore.settle`."""
        logs = [(each.id, each.after, len(each.log)) for each in settlements if each.log]
        claimed = [id_ for each in settlements for id_ in _claimed(each.claim)]
        wants = Wants([each.id for each in settlements], now=now, settles=True, logs=logs, also=claimed)
        size = sum(len(each.value) + sum(map(len, each.log)) for each in settlements)
        return await self._write(wants, lambda held: operations.settle(held, settlements, now), size)

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
        wants = Wants((id,), logs=((id, after, len(kept)),))
        return await self._write(
            wants, lambda held: operations.append(held, id, kept, after, fence), sum(map(len, kept))
        )

    async def trim(self, id: str, upto: int) -> None:  # noqa: A002
        """As `PromiseStore.trim`."""
        await self._write(Wants((id,), logs=((id, 0, 0),)), lambda held: operations.trim(held, id, upto))

    async def get(self, id: str, *, now: int) -> Promise:  # noqa: A002
        """As `PromiseStore.get`."""
        promise = await self._read(lambda: self._reader.get(id))
        if not rules.is_due(promise, now):
            return promise
        # To tell of a time-out is to give a verdict, so it is committed first.
        return await self._write(Wants((id,), now=now), lambda held: operations.look(held, id, now))

    async def read(self, id: str, *, after: int, limit: int = PAGE) -> Log:  # noqa: A002
        """As `PromiseStore.read`."""
        return await self._read(lambda: self._reader.read(id, after, limit))

    async def pending(
        self, *, now: int, session: str | None = None, after: str = "", limit: int = PAGE
    ) -> list[Promise]:
        """As `PromiseStore.pending`."""
        return await self._read(lambda: self._reader.pending(now, session, after, limit))

    async def expire(self, *, now: int, retention: Retention, limit: int = PAGE) -> Expired:
        """As `PromiseStore.expire`. What another node is just about to do it leaves to it."""
        sweep = Sweep(now, now - retention.results, now + retention.tombstones, limit)
        answer: Expired = await self._queued(sweep, None)
        return answer

    def subscribe(
        self, heard: Callable[[Collection[str]], None], waiting: Callable[[], Collection[str]]
    ) -> Callable[[], None]:
        """As `Watched.subscribe`."""
        self._check_open()
        one = Subscription(heard, waiting, asyncio.get_running_loop())
        self._loop.call(self._listener.add, one)
        return partial(self._loop.call, self._listener.remove, one)

    async def acquire(self, name: str, owner: str, *, seconds: float) -> Lease | None:
        """As `Leases.acquire`."""
        return await self._read(lambda: self._reader.acquire(name, owner, seconds))

    async def renew(self, lease: Lease, *, seconds: float) -> bool:
        """As `Leases.renew`."""
        return await self._read(lambda: self._reader.renew(lease, seconds))

    async def release(self, lease: Lease) -> None:
        """As `Leases.release`."""
        await self._read(lambda: self._reader.release(lease))

    async def lapsed(self, prefix: str) -> list[str]:
        """As `Leases.lapsed`."""
        return await self._read(lambda: self._reader.lapsed(prefix))

    async def close(self) -> None:
        """As `PromiseStore.close`."""
        with self._guard:
            if self._closing is None:
                self._closing = self._loop.submit(self._stop())
                self._closing.add_done_callback(lambda _: self._loop.end())
        # Whoever closes it may be canceled; the closing goes on.
        await asyncio.shield(asyncio.wrap_future(self._closing))

    async def _write(self, wants: Wants, run: Callable[[Held], T], size: int = 0) -> T:
        """What the operation answers, after its commit."""
        answer: T = await self._queued(wants, run, size)
        return answer

    def _queued(self, wants: Wants | Sweep, run: Callable[[Held], Any] | None, size: int = 0) -> asyncio.Future[Any]:
        loop = asyncio.get_running_loop()
        call = Call(loop, loop.create_future())
        with self._guard:  # nothing may be queued behind the last job
            self._check_open()
            self._writer.submit(Job(call, size, wants, run))
        return call.future

    async def _read(self, ask: Callable[[], Coroutine[Any, Any, T]]) -> T:
        with self._guard:
            self._check_open()
            asked = self._loop.begin(ask)
        return await asked

    def _check_open(self) -> None:
        if self._closing is not None:
            raise StoreError("store_closed", "the store has been closed")

    async def _begin(self) -> None:
        await self._database.prepare()
        self._listener = Listener(self._database, lambda: self._writer.process)
        self._writer = Writer(self._database, self._listener.tell)
        self._reader = Reader(await self._database.readers())

    async def _stop(self) -> None:
        await self._loop.finish()
        await self._writer.stop()
        await self._listener.stop()
        await self._reader.stop()


def _claimed(claim: Claim | None) -> tuple[str, ...]:
    return () if claim is None else (claim.id,)
