"""A node that does with the bridge what `capsule serve` does with it, as far as nodes and workers that die can tell.

An execution is accepted, and its start is committed, before it is sent to a worker; what the worker tells is committed
before a client hears of it; and a node that starts rules on what an earlier one has left.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

from capsule_bridge import Bridge, Fence, NewPromise, Promise, PromiseStore, Settlement, promise_id
from capsule_protocol.errors import CapsuleError, StoreError
from tests.unit.bridge.simulation.loop import Process
from tests.unit.bridge.simulation.world import LOST, Broken, Channel, Request, Worker, World, is_verdict

T = TypeVar("T")

STARTED = b"started"
RETRY = 0.01


class Node:
    """One life of a node. Clients may come when it is `ready`."""

    def __init__(self, world: World, store: PromiseStore) -> None:
        world.epoch += 1
        self.world = world
        self.process = Process(world.loop)
        self.bridge = Bridge(store, lambda: int(world.loop.time() * 1000))
        self.ready = asyncio.Event()
        self.epoch = world.epoch
        self._accepting = 0
        self.lined_up: set[str] = set()
        self._queue: deque[Promise] = deque()
        self._due = asyncio.Event()
        self._told: dict[str, list[asyncio.Event]] = {}
        self.process.start(self._run())

    # --- requests ---

    async def serve(self, channel: Channel, request: Request) -> None:
        """Accept it, and tell its events."""
        try:
            promise = await self.accept(request)
            channel.send("accepted")
            async for number, event in self._events(promise.id, request.after):
                channel.send("event", number, event)
        except CapsuleError as error:
            channel.send("refused", error.code)

    async def accept(self, request: Request) -> Promise:
        """The promise of the request; what is new is lined up. What can run at once is started with it."""
        at_once = not (self._accepting or self._queue)
        self._accepting += 1
        try:
            promise, fresh = await self.bridge.accept(
                NewPromise(
                    id=promise_id(request.key),
                    kind="execute",
                    session="s",
                    fingerprint=b"%d" % request.code,
                    param=b"%d" % request.code,
                    key=request.key,
                    epoch=self.epoch if at_once else None,
                    log=(STARTED,) if at_once else (),
                )
            )
        finally:
            self._accepting -= 1
        if self.is_to_be_run(promise, fresh=fresh):
            self.line_up(promise)
        return promise

    def is_to_be_run(self, promise: Promise, *, fresh: bool) -> bool:  # noqa: ARG002  mistakes ask for it
        """Not only what is fresh: its call may be said to have failed, and then nobody else will find it."""
        return promise.pending and promise.id not in self.lined_up

    async def _events(self, id_: str, after: int) -> AsyncIterator[tuple[int, bytes]]:
        """What is committed behind a number, and then what will be, up to the verdict."""
        told = asyncio.Event()
        self._told.setdefault(id_, []).append(told)
        while True:
            told.clear()  # first: it may go on while the log is read
            settled = not (await self.bridge.get(id_)).pending
            async for number, event in self.bridge.events(id_, after):
                yield number, event
                after = number
            if settled:
                return
            await told.wait()

    # --- executions ---

    async def _run(self) -> None:
        try:
            await self._work()
        except CapsuleError as error:  # another node has taken its place
            self.world.note("fenced", error.code)
            self.process.kill()

    async def _work(self) -> None:
        """Rule on what there is, then run what is asked for, one after another."""
        await self._recover()
        self.ready.set()
        while True:
            await self._due.wait()
            while self._queue:
                await self.execute(self._queue[0])
                self._queue.popleft()
            self._due.clear()

    async def _recover(self) -> None:
        async def find() -> list[Promise]:
            return [promise async for promise in self.bridge.pending()]

        for promise in await until_committed(find):
            if promise.started_at is None:
                self.line_up(promise)
            else:
                await self.rule(promise)

    async def rule(self, promise: Promise) -> None:
        """It had been started, so it is not run again."""
        log = await until_committed(lambda: self.bridge.store.read(promise.id, after=0))
        await self.tell(promise.id, log.last, [LOST], None)

    async def begin(self, promise: Promise) -> Fence | None:
        """It is about to be sent to a worker. None: it must not be."""
        started, first = await until_committed(lambda: self.bridge.begin(promise.id, self.epoch))
        return started.fence if first else None

    def line_up(self, promise: Promise) -> None:
        self.lined_up.add(promise.id)
        self._queue.append(promise)
        self._due.set()

    async def execute(self, promise: Promise) -> None:
        """From its start to its verdict."""
        fence: Fence | None = promise.fence
        last = 1
        if promise.started_at is None:
            fence = await self.begin(promise)
            if fence is None:
                return
            last = await self.tell(promise.id, 0, [STARTED], fence)
        worker = self.send(promise)
        event = b""
        while not is_verdict(event):
            try:
                (event,) = await worker.channel.receive()
            except Broken:
                event = LOST
            last = await self.tell(promise.id, last, [event], fence)

    def send(self, promise: Promise) -> Worker:
        """Have the code run."""
        worker = Worker(self.world, promise.id.removeprefix("exec:"), int(promise.param))
        self.process.when_it_dies(worker.process.kill)  # a descriptor of the node is all that keeps it alive
        return worker

    async def tell(self, id_: str, last: int, events: list[bytes], fence: Fence | None) -> int:
        """Commit events behind number `last`, then wake whoever wants to hear them; the new last number."""
        if is_verdict(events[-1]):
            action = "reject" if events[-1] == LOST else "resolve"
            end = Settlement(id_, action, events[-1], fence, tuple(events), last)  # type: ignore[arg-type]
            await until_committed(lambda: self.bridge.settle(end))
        else:
            await until_committed(lambda: self.bridge.append(id_, events, last, fence))
        for told in self._told.get(id_, ()):
            told.set()
        return last + len(events)


async def until_committed(attempt: Callable[[], Awaitable[T]]) -> T:
    while True:
        try:
            return await attempt()
        except StoreError:
            await asyncio.sleep(RETRY)
