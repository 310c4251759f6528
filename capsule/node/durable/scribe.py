"""Writes down what one execution tells, before anybody hears of it."""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING

from capsule.events import Finished
from capsule.node.durable.patience import until_committed
from capsule.node.durable.records import action_of, pack_verdict
from capsule.wire import pack_event
from capsule_bridge import Settlement
from capsule_protocol.errors import CapsuleError, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from capsule.events import Event
    from capsule.node.tasks import Tasks
    from capsule_bridge import Bridge, Fence

logger = logging.getLogger("capsule.bridge")

LOG_BYTES = 8 * 2**20
"""Bytes of events that the store keeps of one execution; the oldest go first, and a gap tells of them."""


class Scribe:
    """Has `tell` called for each event, in order, as soon as it is committed. A store that fails is tried again.

    `fence` says that the execution is this node's; if it is not any more, nothing is told either.
    """

    def __init__(self, bridge: Bridge, promise: str, tasks: Tasks, tell: Callable[[Event], object]) -> None:
        self.fence: Fence | None = None
        self._bridge = bridge
        self._promise = promise
        self._tasks = tasks
        self._tell = tell
        self._batch: list[Event] = []
        self._writing = False
        self._over = False
        self._kept: deque[tuple[int, int]] = deque()  # numbers and sizes of what is in the store's log
        self._held = 0

    async def start(self, epoch: int) -> None:
        """Write down that it is about to be sent to the worker. Raises CapsuleError, but waits for a failed store."""
        started = await until_committed(self._promise, lambda: self._bridge.begin(self._promise, epoch))
        self.fence = started

    def write(self, event: Event) -> None:
        """Write it down together with what else comes until the last commit is done."""
        self._batch.append(event)
        if not (self._writing or self._over):
            self._writing = True
            self._tasks.start(self._write())

    async def _write(self) -> None:
        try:
            while self._batch:
                batch, self._batch = self._batch, []
                try:
                    await self._commit(batch)
                except CapsuleError:  # the promise is another node's, or has its verdict from elsewhere
                    logger.exception("%s cannot be written down, and goes on untold", self._promise)
                    self._over = True
                    return
                for event in batch:
                    self._tell(event)
        finally:
            self._writing = False

    async def _commit(self, batch: Sequence[Event]) -> None:
        data = tuple(map(pack_event, batch))
        await until_committed(self._promise, lambda: self._log(batch, data))
        await self._trim(batch, data)

    async def _log(self, batch: Sequence[Event], data: tuple[bytes, ...]) -> None:
        after, last = batch[0].sequence - 1, batch[-1]
        if isinstance(last, Finished):
            value = pack_verdict(last)
            await self._bridge.settle(Settlement(self._promise, action_of(last), value, self.fence, data, after))
        else:
            await self._bridge.append(self._promise, data, after, self.fence)

    async def _trim(self, batch: Sequence[Event], data: Sequence[bytes]) -> None:
        """Keep the log within its bound, in large steps."""
        for event, packed in zip(batch, data, strict=True):
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
        except StoreError as error:  # it is tried again with the next step
            logger.warning("the log of %s could not be trimmed: %s", self._promise, error)
