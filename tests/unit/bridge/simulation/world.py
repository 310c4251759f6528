"""What there is in a simulation, what its processes send each other, and what has been seen of it."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from capsule_bridge import MemoryStore
from tests.unit.bridge.simulation.loop import Process, SimLoop

if TYPE_CHECKING:
    from tests.unit.bridge.simulation.node import Node

SLOWEST = 0.01
"""Seconds that a message may be under way."""
DOOM = 0.05
"""How often a worker dies instead of telling what comes next."""
OK = b"verdict: ok"
LOST = b"verdict: worker lost"


class Broken(Exception):
    """The other side is gone."""


class Channel:
    """What one process sends to another, in order, until one of them dies."""

    def __init__(self, loop: SimLoop) -> None:
        self._loop = loop
        self._sent: deque[tuple[Any, ...]] = deque()
        self._woken: asyncio.Future[None] | None = None
        self._broken = False

    def send(self, *message: Any) -> None:
        """It arrives some time later."""
        if not self._broken:
            self._sent.append(message)
            self._wake()

    def cut(self) -> None:
        """What is under way is lost."""
        self._broken = True
        self._sent.clear()
        self._wake()

    async def receive(self) -> tuple[Any, ...]:
        """The next message. Raises Broken."""
        await asyncio.sleep(self._loop.chance.random() * SLOWEST)
        while not self._sent:
            if self._broken:
                raise Broken
            self._woken = self._loop.create_future()
            await self._woken
        return self._sent.popleft()

    def _wake(self) -> None:
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)


class Request(NamedTuple):
    """What a client asks for, behind the last event that it has heard. The code is how many events it tells."""

    key: str
    code: int
    after: int = 0


@dataclass
class World:
    """All of it. `started`: how often the code of an execution was."""

    loop: SimLoop
    disk: MemoryStore = field(default_factory=MemoryStore)
    epoch: int = 0
    node: Node | None = None
    workers: list[Worker] = field(default_factory=list)
    started: Counter[str] = field(default_factory=Counter)
    heard: dict[tuple[str, int], bytes] = field(default_factory=dict)
    """Events of which a client was told, by key and number."""
    accepted: dict[str, int] = field(default_factory=dict)
    """The code that a key stands for, as a client was told."""
    trace: list[tuple[Any, ...]] = field(default_factory=list)

    def note(self, *what: Any) -> None:
        self.trace.append((self.loop.steps, self.loop.time(), *what))

    def hear(self, key: str, number: int, event: bytes) -> None:
        """A client was told of an event."""
        self.note("heard", key, number, event)
        assert self.heard.setdefault((key, number), event) == event, f"two events are number {number} of {key}"
        assert number == 1 or not is_verdict(self.heard[key, number - 1]), f"something follows the verdict of {key}"

    def hear_accepted(self, key: str, code: int) -> None:
        """A client was told that its request was accepted."""
        assert self.accepted.setdefault(key, code) == code, f"{key} was accepted for two requests"


class Worker:
    """Runs the code of one execution, tells its events, and says that it has ended. It may die at any moment."""

    def __init__(self, world: World, key: str, code: int) -> None:
        self.process = Process(world.loop)
        self.channel = Channel(world.loop)
        self.process.when_it_dies(self.channel.cut)
        self.process.start(self._run(world, key, code))
        world.workers.append(self)

    async def _run(self, world: World, key: str, code: int) -> None:
        world.started[key] += 1
        world.note("runs", key)
        for number in range(code):
            await asyncio.sleep(world.loop.chance.random() * SLOWEST)
            self.channel.send(b"%s says %d" % (key.encode(), number))
            if world.loop.chance.random() < DOOM:
                self.process.kill()
        self.channel.send(OK)


def is_verdict(event: bytes) -> bool:
    return event.startswith(b"verdict")
