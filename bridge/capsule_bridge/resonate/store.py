"""`ResonateStore`: a Resonate server gives the verdicts, a SQLite file beside the node keeps all the rest.

The server is the judge: whatever is settled is settled there first, and what is pending here is asked for there. So
others may wait for Capsule's promises and settle them, and all hear the same verdict. Its clock is the one by which
promises time out. Nothing is looked for there that is not written down here: Resonate's search is not needed.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from capsule_bridge import rules
from capsule_bridge.records import Created, Expired, Settled
from capsule_bridge.resonate.client import ResonateClient
from capsule_bridge.resonate.judge import Judge, same_request
from capsule_bridge.resonate.locks import Locks
from capsule_bridge.resonate.mirror import AT_NO_TIME, Mirror
from capsule_bridge.resonate.watch import Watch
from capsule_bridge.sqlite.faults import no_fault
from capsule_bridge.states import PENDING, TIMED_OUT
from capsule_bridge.store import PAGE
from capsule_protocol.errors import LocalProtocolError, SessionError, StoreError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Sequence
    from pathlib import Path

    from capsule_bridge.records import Claim, Fence, Log, NewPromise, Promise, Retention, Settlement, Started
    from capsule_bridge.resonate.wire import Record
    from capsule_bridge.sqlite.connect import Level
    from capsule_bridge.sqlite.faults import Fault


class ResonateStore:
    """A `PromiseStore` at the server `url`, with the files of a `SqliteStore` at `path`. It belongs to one event loop.

    Unlike in other stores, several settlements in one call are one transaction here but not at the server: if that
    goes away in between, some stand. Opening it asks the server nothing. Raises as `SqliteStore` does.
    """

    def __init__(
        self, url: str, path: Path, durability: Level = "power", *, token: str | None = None, fault: Fault = no_fault
    ) -> None:
        self._mirror = Mirror(path, durability, fault=fault)
        self._remote = ResonateClient(url, token)
        self._judge = Judge(self._remote, self._mirror)
        self._watch = Watch(self._judge, self._mirror)
        self._locks = Locks()
        self._running = 0
        self._idle = asyncio.Event()
        self._closing: asyncio.Task[None] | None = None

    @property
    def failure(self) -> Exception | None:
        """Why the last transaction failed, or the last call of the server; None as soon as one has succeeded."""
        return self._mirror.failure or self._remote.failure

    async def create(self, new: NewPromise, *, now: int) -> Created:
        """As `PromiseStore.create`."""
        async with self._call():
            found = await self._mirror.requested(new)
            if found is not None:
                return Created(await self._judge.hear(found), fresh=False)
            if new.claim is not None:
                rules.check_claim(new.claim, await self._mirror.parent(new.claim.id))
            if new.parent is not None:
                # Before the server makes a child that nobody may have.
                rules.made(new, await self._mirror.parent(new.parent), now)
            record = await self._remote.create(new)
            if not same_request(new, record):
                raise SessionError("idempotency_conflict", f"the server knows another promise {new.id!r}")
            return await self._created(new, record, now)

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
        async with self._call(), self._locks.hold(id):
            promise = await self._judge.hear(await self._mirror.look(id))
            at = _undue(promise.timeout_at, now)
            return await self._mirror.start(id, epoch=epoch, now=at, again=again, claim=claim)

    async def settle(self, *settlements: Settlement, now: int) -> list[Settled]:
        """As `PromiseStore.settle`."""
        first = {each.id: each for each in reversed(settlements)}
        async with self._call(), self._locks.hold(*first):
            found = {promise.id: promise for promise in await self._look_at(settlements, now)}
            wanted = [(found[id_], each) for id_, each in first.items() if found[id_].pending]
            given = await self._judge.settle(wanted)
        answers = []
        for each in settlements:
            settled = given.get(each.id) or Settled(found[each.id], decided=False)
            answers.append(Settled(settled.promise, settled.decided and each is first[each.id]))
        return answers

    async def append(
        self,
        id: str,  # noqa: A002
        events: Sequence[bytes],
        *,
        after: int,
        fence: Fence | None = None,
    ) -> int:
        """As `PromiseStore.append`. The log is none of the server's business."""
        kept = tuple(events)
        async with self._call(), self._locks.hold(id):
            return await self._mirror.append(id, kept, after=after, fence=fence)

    async def trim(self, id: str, upto: int) -> None:  # noqa: A002
        """As `PromiseStore.trim`."""
        async with self._call():
            await self._mirror.trim(id, upto)

    async def get(self, id: str, *, now: int) -> Promise:  # noqa: A002, ARG002  the server's clock decides
        """As `PromiseStore.get`."""
        async with self._call():
            return await self._judge.hear(await self._mirror.look(id))

    async def read(self, id: str, *, after: int, limit: int = PAGE) -> Log:  # noqa: A002
        """As `PromiseStore.read`."""
        async with self._call():
            return await self._mirror.read(id, after=after, limit=limit)

    async def pending(
        self, *, now: int, session: str | None = None, after: str = "", limit: int = PAGE
    ) -> list[Promise]:
        """As `PromiseStore.pending`; some may have got a verdict of which this node has not heard."""
        async with self._call():
            return await self._mirror.pending(now=now, session=session, after=after, limit=limit)

    async def expire(self, *, now: int, retention: Retention, limit: int = PAGE) -> Expired:
        """As `PromiseStore.expire`. The server has to be asked: it may not look at the clock by itself."""
        async with self._call():
            due = await self._mirror.due(now, limit)
            heard = await asyncio.gather(*(self._judge.hear(promise) for promise in due))
            timed_out = tuple(promise.id for promise in heard if promise.state == TIMED_OUT)
            forgotten = await self._mirror.forget(now, retention, limit)
            return Expired(timed_out, forgotten, more=limit in {len(timed_out), len(forgotten)})

    def subscribe(
        self, heard: Callable[[Collection[str]], None], waiting: Callable[[], Collection[str]]
    ) -> Callable[[], None]:
        """Call `heard` with ids of promises that got a verdict; those of `waiting` and their children are looked at.

        These are hints: whoever waits for one asks the store for it. Some are told twice, and some that nobody waits
        for. Answers how to end it.
        """
        return self._watch.subscribe(heard, waiting)

    async def close(self) -> None:
        """As `PromiseStore.close`."""
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._close())
        # Whoever closes it may be canceled; the closing goes on.
        await asyncio.shield(self._closing)

    @asynccontextmanager
    async def _call(self) -> AsyncIterator[None]:
        if self._closing is not None:
            raise StoreError("store_closed", "the store has been closed")
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1
            if not self._running:
                self._idle.set()

    async def _close(self) -> None:
        await self._watch.stop()
        while self._running:
            self._idle.clear()
            await self._idle.wait()
        await self._remote.close()
        await self._mirror.close()

    async def _created(self, new: NewPromise, record: Record, now: int) -> Created:
        """The promise, which the server has made, is made here."""
        asked = new if record.pending else new._replace(epoch=None)  # it is not begun if it has its verdict
        at = now if record.state == TIMED_OUT else _undue(new.timeout_at, now)
        try:
            made = await self._mirror.create(asked, now=at)
        except (SessionError, LocalProtocolError):
            await self._judge.abandon(new)
            raise
        if not made.fresh and made.promise.id != new.id:
            await self._judge.abandon(new)
        if record.state == PENDING or not made.promise.pending:
            return made
        return Created(await self._judge.adopt(record), made.fresh)

    async def _look_at(self, settlements: Sequence[Settlement], now: int) -> list[Promise]:
        """What is to be settled, once the server has said what has timed out. Raises what `settle` would."""
        found = await self._mirror.check(settlements, now)
        due = {promise.id: promise for promise in found if rules.is_due(promise, now)}
        if not due:
            return found
        await asyncio.gather(*(self._judge.hear(promise) for promise in due.values()))
        return await self._mirror.check(settlements, AT_NO_TIME)


def _undue(timeout_at: int | None, now: int) -> int:
    """The time for what the server says is pending: by its clock, which counts, nothing is due yet."""
    return now if timeout_at is None else min(now, timeout_at - 1)
