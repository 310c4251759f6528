"""Writes down what one execution tells, before anybody hears of it."""

from __future__ import annotations

import logging
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from capsule.events import Finished
from capsule.node.durable.elsewhere import story
from capsule.node.durable.patience import until_committed
from capsule.node.durable.records import action_of, pack_verdict
from capsule.wire import pack_event
from capsule_bridge import Settlement, promise_id
from capsule_protocol.errors import CapsuleError, SessionError, StoreError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable, Sequence

    from capsule.events import Event
    from capsule.node.tasks import Tasks
    from capsule_bridge import Bridge, Fence, Promise, Settled, Started

logger = logging.getLogger("capsule.bridge")

LOG_BYTES = 8 * 2**20
"""Bytes of events that the store keeps of one execution; the oldest go first, and a gap tells of them."""


class Settle(Protocol):
    """How verdicts are given."""

    def __call__(self, *settlements: Settlement) -> Awaitable[list[Settled]]:
        """As `Bridge.settle`."""


class Reader(Protocol):
    """Who hears what is written down."""

    @property
    def last(self) -> int:
        """The number of the newest event that it was told."""

    def tell(self, event: Event) -> None:
        """An event of the execution is committed."""

    def overrule(self, events: list[Event]) -> None:
        """Others have had the last word: these follow what was told, and end with the verdict."""


class Scribe:
    """Tells the reader of each event, in order, as soon as it is committed. A store that fails is tried again.

    `fence` says that the execution is this node's. If it is not any more, or somebody else has given its verdict, the
    reader hears what others have written down. Verdicts are given by `settle`, also of what was not begun.

    The verdicts of those that it has `stopped` are written down together with its own, which waits until all of an
    earlier node's are `complete`: if this node died in between, the next one would run what should not be run.
    """

    def __init__(
        self, bridge: Bridge, promise: str, tasks: Tasks, reader: Reader, settle: Settle | None = None
    ) -> None:
        self.fence: Fence | None = None
        self.stopped: Callable[[], Sequence[Finished]] = tuple
        self.complete: asyncio.Event | None = None
        self._bridge = bridge
        self._promise = promise
        self._tasks = tasks
        self._reader = reader
        self._give = settle or bridge.settle
        self._value: bytes | None = None  # our own verdict
        self._batch: list[Event] = []
        self._under_way: list[Event] = []
        self._writing = False
        self._over = False
        self._kept: deque[tuple[int, int]] = deque()  # numbers and sizes of what is in the store's log
        self._held = 0
        self._counted = 0

    async def start(self, begin: Callable[[], Awaitable[Started]]) -> None:
        """Write down by `begin` that it is about to be sent to the worker. Waits for a failed store.

        Raises SessionError: `promise_fenced` if it may not be, because it was begun before or has its verdict;
        StoreError: `store_damaged`; and what `begin` raises.
        """
        started, first = await until_committed(self._promise, begin, "store_damaged")
        if not first:
            raise SessionError("promise_fenced", f"{self._promise} was begun before, or has its verdict")
        self.fence = started.fence

    def give_way(self) -> None:
        """What this node has to say of it counts no more: tell what others do."""
        if not self._over:
            self._over = True
            self._tasks.start(self._follow())

    def watch(self) -> None:
        """Give way when others give its verdict. For stores in which they may."""
        self._tasks.start(self._watch())

    def write(self, event: Event) -> None:
        """Have it written down with the next `flush`."""
        self._batch.append(event)

    def flush(self) -> None:
        """Write down what there is, together with what else comes until the last commit is done.

        A verdict waits for no commit: it takes with it what is under way, and to write that down twice changes nothing.
        """
        if self._over or not self._batch:
            return
        if not self._writing:
            self._writing = True
            self._tasks.start_now(self._write())
        elif isinstance(self._batch[-1], Finished):
            batch, self._batch = [*self._under_way, *self._batch], []
            self._tasks.start_now(self._put(batch))

    async def _write(self) -> None:
        try:
            while self._batch and not self._over:
                self._under_way, self._batch = self._batch, []
                await self._put(self._under_way)
        finally:
            self._writing = False

    async def _put(self, batch: Sequence[Event]) -> None:
        try:
            await self._commit(batch)
        except CapsuleError as error:  # the promise is another node's, or has its verdict from elsewhere
            if not self._over:
                logger.warning("%s is not written down by this node any more: %s", self._promise, error)
            self.give_way()
        for event in batch:
            if not self._over and event.sequence > self._reader.last:
                self._reader.tell(event)

    async def _commit(self, batch: Sequence[Event]) -> None:
        data = tuple(map(pack_event, batch))
        await until_committed(self._promise, lambda: self._log(batch, data))
        await self._trim(batch, data)

    async def _log(self, batch: Sequence[Event], data: tuple[bytes, ...]) -> None:
        after, last = batch[0].sequence - 1, batch[-1]
        if isinstance(last, Finished):
            self._value = pack_verdict(last)
            ending = Settlement(self._promise, action_of(last), self._value, self.fence, data, after)
            promise = await self._settle(ending, ok=last.verdict == "ok")
            if promise.value != self._value:  # else it is ours, if perhaps by an attempt that is said to have failed
                raise SessionError("promise_settled", "it has its verdict from elsewhere")
        else:
            await self._bridge.append(self._promise, data, after, self.fence)

    async def _settle(self, ending: Settlement, *, ok: bool) -> Promise:
        if self.complete is not None and not ok:
            await self.complete.wait()
        others = [_whole(each) for each in self.stopped() if each.sequence == 1]
        try:
            (promise, _), *_ = await self._give(ending, *others)
        except StoreError:
            raise
        except CapsuleError:  # one of them may be somebody else's by now
            (promise, _), *_ = await self._give(ending)
        return promise

    async def _watch(self) -> None:
        with suppress(CapsuleError):  # the store was closed
            promise = await until_committed(self._promise, lambda: self._bridge.wait(self._promise))
            if promise.value != self._value:
                logger.warning("%s has its verdict from elsewhere", self._promise)
                self.give_way()

    async def _follow(self) -> None:
        with suppress(CapsuleError):  # the store was closed
            promise = await until_committed(self._promise, lambda: self._bridge.wait(self._promise))
            events = await until_committed(self._promise, lambda: story(self._bridge, promise, self._reader.last))
            self._reader.overrule(events)

    async def _trim(self, batch: Sequence[Event], data: Sequence[bytes]) -> None:
        """Keep the log within its bound, in large steps."""
        for event, packed in zip(batch, data, strict=True):
            if event.sequence > self._counted:
                self._counted = event.sequence
                self._kept.append((event.sequence, len(packed)))
                self._held += len(packed)
        if self._held <= 2 * LOG_BYTES:
            return
        upto = 0
        while self._held > LOG_BYTES and len(self._kept) > 1:
            upto, size = self._kept.popleft()
            self._held -= size
        try:
            await self._bridge.store.trim(self._promise, upto)
        except Exception as error:  # noqa: BLE001 - whatever the store raises, it is tried again with the next step
            logger.warning("the log of %s could not be trimmed: %s", self._promise, error)


def _whole(finished: Finished) -> Settlement:
    """The end of what told nothing else: it was never sent."""
    promise = promise_id(finished.execution_id)
    return Settlement(promise, action_of(finished), pack_verdict(finished), log=(pack_event(finished),))
