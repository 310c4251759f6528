"""One run of the simulation: clients ask, chance kills, and in the end all has to agree."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from capsule_bridge import promise_id
from tests.unit.bridge.simulation.loop import SimLoop
from tests.unit.bridge.simulation.node import Node
from tests.unit.bridge.simulation.store import SimStore
from tests.unit.bridge.simulation.world import OK, Broken, Channel, Request, World, is_verdict

KEYS = "kl"
CLIENTS = 3
REQUESTS = 2
"""How many each client makes, one after another."""
CODES = (0, 1, 1, 1, 3)
"""How many events the code tells; clients do not always mean the same by a key."""
KILLS = 3
KILL_STEPS = 300
"""A process is killed before one of so many steps of the loop."""
DOWN = 0.05
"""Seconds until a node is started again, at most."""
UNDEAD = 0.2
"""Seconds for which one goes on after it was given up."""
IMPATIENCE = 0.05
"""How often a client leaves after a message, and asks again."""
MAX_STEPS = 20_000
PATIENCE = 0.05
"""Seconds until a client asks again, at most."""


class WentWrong(Exception):
    """Something was lost, doubled or changed, or will never end."""


@dataclass(frozen=True)
class Parts:
    """What a run is made of; tests put in some that are wrong."""

    node: type[Node] = Node
    store: type[SimStore] = SimStore
    zombies: bool = False
    """Whether a node that is given up may go on for a while, as one of several that share a store may."""


PARTS = Parts()


def play(seed: int, parts: Parts = PARTS) -> World:
    """A run that has ended well. Raises WentWrong."""
    simulation = Simulation(seed, parts)
    wrong = []
    try:
        simulation.loop.run_until_complete(simulation.run())
    except (AssertionError, RuntimeError) as error:
        wrong.append(repr(error))
    wrong += simulation.loop.end()
    if wrong:
        raise WentWrong(f"seed {seed}: {', '.join(wrong)}")
    return simulation.world


class Simulation:
    """One world, and those who live in it."""

    def __init__(self, seed: int, parts: Parts) -> None:
        self.loop = SimLoop(seed, self._before_step)
        self.world = World(self.loop)
        self._parts = parts
        self._chance = self.loop.chance
        steps = [self._chance.randrange(1, KILL_STEPS) for _ in range(self._chance.randrange(KILLS + 1))]
        self._kills = {step: self._chance.random() < 0.7 for step in steps}

    async def run(self) -> None:
        self._start()
        await asyncio.gather(*(self._client() for _ in range(CLIENTS)))
        self._kills = {}
        await self._look()

    # --- life and death ---

    def _before_step(self, step: int) -> None:
        if step in self._kills:
            self._kill(node=self._kills[step])
        if step > MAX_STEPS:
            raise RuntimeError("it does not end")

    def _kill(self, *, node: bool) -> None:
        world = self.world
        if node and world.node is not None:
            world.note("the node dies")
            if self._parts.zombies and self._chance.random() < 0.8:
                self.loop.call_later(self._chance.random() * UNDEAD, world.node.process.kill)
            else:
                world.node.process.kill()
            world.node = None
            self.loop.call_later(self._chance.random() * DOWN, self._start)
        elif not node and world.workers:
            world.note("a worker dies")
            world.workers[-1].process.kill()

    def _start(self) -> None:
        self.world.node = self._parts.node(self.world, self._parts.store(self.world.disk, self._chance))

    # --- clients ---

    async def _client(self) -> None:
        for _ in range(REQUESTS):
            await self._ask(self._chance.choice(KEYS), self._chance.choice(CODES))

    async def _ask(self, key: str, code: int) -> None:
        """Until there is a verdict, or another request had the key first."""
        after, done = 0, False
        while not done:
            await asyncio.sleep(self._chance.random() * PATIENCE)
            try:
                after, done = await self._listen(Request(key, code, after))
            except Broken:
                self.world.note("broken", key)

    async def _listen(self, request: Request) -> tuple[int, bool]:
        """The last event that was heard, and whether there is nothing more to hear."""
        channel, after = self._connected(request), request.after
        while True:
            kind, *rest = await channel.receive()
            if kind == "accepted":
                self.world.hear_accepted(request.key, request.code)
            elif kind == "refused":
                assert rest[0] in {"idempotency_conflict", "store_unavailable"}, rest
                return after, rest[0] == "idempotency_conflict"
            else:
                number, event = rest
                assert number == after + 1, f"{number} follows {after}"
                self.world.hear(request.key, number, event)
                after = number
                if is_verdict(event):
                    return after, True
            if self._chance.random() < IMPATIENCE:
                return after, False

    def _connected(self, request: Request) -> Channel:
        node, channel = self.world.node, Channel(self.loop)
        if node is None or not node.ready.is_set():
            raise Broken
        node.process.when_it_dies(channel.cut)
        node.process.start(node.serve(channel, request))
        return channel

    # --- the end ---

    async def _look(self) -> None:
        """A node is started once more, and whoever asks again hears what was heard before."""
        self._kill(node=True)
        while self.world.node is None or not self.world.node.ready.is_set():
            await asyncio.sleep(PATIENCE)
        for key, code in self.world.accepted.items():
            await self._ask(key, code)
            await self._look_at(key, code)
        assert await self.world.disk.pending(now=0) == []
        assert max(self.world.started.values(), default=0) <= 1, "code was run twice"

    async def _look_at(self, key: str, code: int) -> None:
        log = await self.world.disk.read(promise_id(key), after=0)
        told = [self.world.heard[key, event.sequence] for event in log.events]
        assert told == [event.data for event in log.events], f"{key} is told otherwise than it is kept"
        assert [is_verdict(event) for event in told] == [False] * (len(told) - 1) + [True]
        verdict = (await self.world.disk.get(promise_id(key), now=0)).value
        assert verdict == told[-1]
        assert verdict != OK or (len(told), self.world.started[key]) == (code + 2, 1), "it is said to have run well"
