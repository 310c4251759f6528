"""The bridge: what a node does with its store. It counts, keeps the time, and wakes whoever waits for a verdict."""

from __future__ import annotations

import asyncio
import time
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from capsule_bridge.identity import execution_promise
from capsule_bridge.interceptors import Interceptors
from capsule_bridge.records import Created, Fence, Settlement, Started
from capsule_bridge.rules import whole
from capsule_bridge.states import CANCELED, TIMED_OUT
from capsule_bridge.stats import BridgeInfo, Stats
from capsule_bridge.store import PAGE, Salvaging, Watched
from capsule_protocol.errors import CapsuleError, SessionError, StoreError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Sequence

    from capsule_bridge.interceptors import Interceptor
    from capsule_bridge.records import (
        Claim,
        Expired,
        Log,
        LoggedEvent,
        NewPromise,
        Promise,
        Retention,
        Settled,
    )
    from capsule_bridge.states import State
    from capsule_bridge.stats import SessionPromises
    from capsule_bridge.store import PromiseStore


def wall_clock() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def steady_clock() -> Callable[[], int]:
    """A clock that begins as the wall clock, and does not jump with it: nothing is due before its time, or after it.

    It counts while the machine sleeps, so that what it tells stays what a watch would.
    """
    tick = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    offset = time.time_ns() - time.clock_gettime_ns(tick)
    return lambda: (time.clock_gettime_ns(tick) + offset) // 1_000_000


class Bridge:
    """One for each node. Its methods raise what those of `PromiseStore` raise; what they answer is committed."""

    def __init__(
        self, store: PromiseStore, clock: Callable[[], int] | None = None, interceptors: Iterable[Interceptor] = ()
    ) -> None:
        self.store = store
        self.interceptors = Interceptors(interceptors)
        self.stats = Stats()
        self.now = clock or steady_clock()
        self._waiting: dict[str, dict[asyncio.Future[None], str]] = {}
        self._doubtful: set[str] = set()  # begun by calls that did not answer
        self._shared = store if isinstance(store, Watched) else None
        self._deafen: Callable[[], None] | None = None

    @property
    def clock_ahead(self) -> float:
        """Seconds that its clock is ahead of the wall clock: more than a little if that was set since it began."""
        return (self.now() - wall_clock()) / 1000

    async def accept(self, new: NewPromise, judge: Callable[[Promise], object] | None = None) -> Created:
        """Make a promise, or find it.

        One of the same id with another fingerprint is what was asked for if `judge` does not raise; it is asked of
        none that belongs to somebody else, or has another key.
        """
        with self._timed():
            try:
                created = await self._create(new, judge)
            except CapsuleError as error:
                self.stats.refused(new, error.code)
                raise
        self.stats.accepted(created)
        self.interceptors.tell("accepted" if created.fresh else "attached", created.promise)
        return created

    async def begin(self, id: str, epoch: int, claim: Claim | None = None) -> Started:  # noqa: A002  the field's name
        """What it stands for is about to be done. It may be done only if nobody has said so before: `first`.

        A call that is said to have failed may have done it all the same: then the next one is told that it is the
        first. For this `epoch` has to be this node's alone.
        """
        doubtful = id in self._doubtful
        with self._timed():
            try:
                started = await self.store.start(id, epoch=epoch, now=self.now(), again=False, claim=claim)
            except BaseException:
                self._doubtful.add(id)
                raise
        self._doubtful.discard(id)
        promise = started.promise
        mine = promise.pending and promise.fence == Fence(epoch, 1)
        return Started(promise, started.first or (doubtful and mine))

    async def take(self, id: str, epoch: int, claim: Claim | None = None) -> Fence:  # noqa: A002
        """It is this node's from now on, whoever had it before."""
        with self._timed():
            return (await self.store.start(id, epoch=epoch, now=self.now(), claim=claim)).promise.fence

    async def append(self, id: str, events: Sequence[bytes], after: int, fence: Fence | None) -> None:  # noqa: A002
        """Log events behind number `after`."""
        with self._timed():
            await self.store.append(id, events, after=after, fence=fence)
        self.stats.events += len(events)
        self._wake(id)

    async def settle(self, *settlements: Settlement) -> list[Settled]:
        """Give verdicts, in one transaction."""
        with self._timed():
            answers = await self.store.settle(*settlements, now=self.now())
        self.stats.events += sum(len(each.log) for each in settlements)
        children: list[str] = []
        for promise, decided in answers:
            if decided or self.stats.awaits(promise.id):  # it was decided by a call that is said to have failed
                children += self._end(promise)
            self._wake(promise.id)
        await self._look_at(children)
        return answers

    async def get(self, id: str) -> Promise:  # noqa: A002
        """The promise."""
        return await self.store.get(id, now=self.now())

    async def part(self, id: str, after: int, *, wait: float) -> tuple[Log, bool]:  # noqa: A002
        """What is logged behind a number, and whether it goes to the verdict; waits if there is nothing yet.

        It does not wait behind a number that the log has not reached.
        """
        deadline = time.monotonic() + wait
        while True:
            with self._listening(id) as woken:
                settled = not (await self.get(id)).pending  # before the log is read, which is complete then
                log = await self.store.read(id, after=after)
                left = deadline - time.monotonic()
                if log.events or settled or left <= 0 or after > log.last:
                    last = log.events[-1].sequence if log.events else max(after, log.last)
                    return log, settled and last >= log.last
                await asyncio.wait([woken], timeout=left)

    async def wait(self, id: str) -> Promise:  # noqa: A002
        """The promise, as soon as it has a verdict, whoever gives it, or its time-out is due."""
        while True:
            with self._listening(id) as woken:
                promise = await self.get(id)
                if not promise.pending:
                    if self.stats.awaits(promise.id):  # a time-out, or somebody else's verdict
                        await self._look_at(self._end(promise))
                    return promise
                left = None if promise.timeout_at is None else max(0, promise.timeout_at - self.now()) / 1000
                await asyncio.wait([woken], timeout=left)

    async def events(self, id: str, after: int) -> AsyncIterator[LoggedEvent]:  # noqa: A002
        """What is logged behind a number, up to what the log had when its end was reached."""
        while True:
            log = await self.store.read(id, after=after)
            for event in log.events:
                yield event
                after = event.sequence
            if after >= log.last or not log.events:
                return

    def info(self) -> BridgeInfo:
        """What it has done and has before it."""
        quarantined = tuple(each.name for each in self.interceptors.quarantined)
        now, failure = self.now(), self.store.failure
        failing = "" if failure is None else str(failure) or type(failure).__name__
        return replace(self.stats.info(now, quarantined), failing=failing, clock_ahead=self.clock_ahead)

    def info_of(self, session: str) -> SessionPromises | None:
        """What of that belongs to a session; None if the session is not written down."""
        return self.stats.of_session(session, self.now())

    async def pending(self, session: str | None = None, after: str = "") -> AsyncIterator[Promise]:
        """All promises without a verdict, oldest first; settle them behind the iteration."""
        found: list[Promise] = []
        while page := await self.store.pending(now=self.now(), session=session, after=after):
            found += page
            after = page[-1].id
            if len(page) < PAGE:
                break
        for promise in found:
            yield promise

    async def readable(self, after: str = "") -> list[Promise]:
        """The promises without a verdict behind this one that can be read: others shall not suffer for what cannot."""
        try:
            return [promise async for promise in self.pending(after=after)]
        except StoreError:
            if not isinstance(self.store, Salvaging):
                raise
            return (await self.store.salvage(now=self.now(), after=after))[0]

    async def cancel_all(self, session: str) -> int:
        """Cancel what is pending of a session, in one transaction, and say how much that was. Idempotent."""
        found = [Settlement(promise.id, "cancel") async for promise in self.pending(session)]
        if not found:
            return 0
        return sum(each.decided for each in await self.settle(*found))

    async def expire(self, retention: Retention) -> Expired:
        """Write down the time-outs that are due, and forget what is old."""
        expired = await self.store.expire(now=self.now(), retention=retention)
        self._wake_all(expired.timed_out)
        await self._look_at(expired.timed_out, TIMED_OUT)
        return expired

    async def close(self) -> None:
        """Let go of the store. Idempotent."""
        if self._deafen is not None:
            self._deafen()
        await self.store.close()

    # --- inside ---

    async def _create(self, new: NewPromise, judge: Callable[[Promise], object] | None) -> Created:
        try:
            return await self.store.create(new, now=self.now())
        except SessionError as refusal:
            if judge is None or refusal.code != "idempotency_conflict":
                raise
            found = await self._find(new.id)
            if found is None or whole(found) != whole(new._replace(fingerprint=found.fingerprint)):
                raise
        judge(found)
        return Created(found, fresh=False)

    async def _find(self, id_: str) -> Promise | None:
        try:
            return await self.get(id_)
        except SessionError:  # the conflict is about the key of another one
            return None

    @contextmanager
    def _timed(self) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        self.stats.took(time.perf_counter() - begin)

    @contextmanager
    def _listening(self, id_: str) -> Iterator[asyncio.Future[None]]:
        """Resolved when something happens to the promise, from before the store is asked: it may happen meanwhile."""
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = self._waiting.setdefault(execution_promise(id_), {})
        waiting[woken] = id_
        self._hear()
        try:
            yield woken
        finally:
            del waiting[woken]
            if not waiting:
                self._waiting.pop(execution_promise(id_), None)

    def _hear(self) -> None:
        """From the first who waits on, hear what others do in the same store: its loop is the one to be told in."""
        if self._deafen is None and self._shared is not None:
            self._deafen = self._shared.subscribe(self._wake_all, self._waited_for)

    def _waited_for(self) -> set[str]:
        return {id_ for waiting in self._waiting.values() for id_ in waiting.values()}

    def _wake_all(self, ids: Collection[str]) -> None:
        for id_ in ids:
            self._wake(id_)

    def _end(self, promise: Promise) -> Sequence[str]:
        """A promise of this node has its verdict: that is counted and told once. Answers what has ended with it."""
        children = self.stats.settled(promise)
        self.interceptors.tell("settled", promise)
        self._wake(promise.id)
        return children

    async def _look_at(self, ended: Sequence[str], state: State = CANCELED) -> None:
        """As `_end`, for what ended by itself or with its parent; who waits for one of them may have been faster.

        What cannot be read any more, because it was forgotten at once, is counted as in this state, and not told.
        """
        for id_ in ended:
            if self.stats.awaits(id_):
                try:
                    promise = await self.get(id_)
                except CapsuleError:
                    self.stats.lost(id_, state)
                    continue
                if self.stats.awaits(id_):
                    await self._look_at(self._end(promise))

    def _wake(self, id_: str) -> None:
        """Those who wait for it, or for what ended with it: they look again."""
        for woken in self._waiting.get(execution_promise(id_), ()):
            if not woken.done():
                woken.set_result(None)
