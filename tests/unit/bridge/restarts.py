"""Rounds of a database that crashes under those who write to it, and what it has to have afterwards."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field

from capsule_bench.database import Server
from capsule_bridge import Settlement
from capsule_bridge.postgres import PostgresStore
from capsule_protocol.errors import StoreError
from tests.unit.bridge.support import new

WRITERS = 16
MANY = 400
"""How many facts may be acknowledged before the crash."""


@dataclass
class Tally:
    """What happened in all rounds: `facts` were acknowledged, `unknown` calls got no answer."""

    rounds: int = 0
    facts: int = 0
    unknown: int = 0
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.rounds} crashes of PostgreSQL, {self.facts:,} acknowledged facts, "
            f"{self.unknown:,} calls without an answer, {len(self.wrong)} lost, changed or doubled"
        )


@dataclass
class Known:
    """What a writer knows of a promise: events and verdict that were acknowledged, or asked for at least."""

    logged: int = 0
    asked: int = 0
    verdict: bytes | None = None
    tried: bytes | None = None


class Round:
    """Writers until the crash, and the look afterwards."""

    def __init__(self, server: Server, store: PostgresStore, number: int, chance: random.Random) -> None:
        self.server = server
        self.store = store
        self.number = number
        self.chance = chance
        self.known: dict[str, Known] = {}
        self.facts = 0
        self.unknown = 0
        self.last = chance.randint(1, MANY)
        self.crash = asyncio.Event()

    async def run(self) -> list[str]:
        writers = [asyncio.ensure_future(self._write(n)) for n in range(WRITERS)]
        await self.crash.wait()
        await asyncio.to_thread(self.server.stop)
        await asyncio.gather(*writers)
        self.server.start()
        return [f"{name}: {wrong}" for name, known in self.known.items() for wrong in await self._amiss(name, known)]

    async def _write(self, writer: int) -> None:
        """Executions one after another, until one gets no answer."""
        count = 0
        try:
            while True:
                await self._execution(f"{self.number}.{writer}.{count}")
                count += 1
        except StoreError:
            self.unknown += 1

    async def _execution(self, name: str) -> None:
        await self.store.create(new(name, key=name, log=(event(name, 1),)), now=1)
        known = self.known[name] = Known(logged=1, asked=1)
        self._fact()
        await self.store.start(name, epoch=1, now=1)
        self._fact()
        for _ in range(2):
            known.asked += 2
            events = [event(name, n) for n in range(known.logged + 1, known.asked + 1)]
            known.logged = await self.store.append(name, events, after=known.logged)
            self._fact()
        known.tried = f"{name}!".encode()
        ((promise, _),) = await self.store.settle(Settlement(name, "resolve", known.tried), now=2)
        known.verdict = promise.value
        self._fact()

    def _fact(self) -> None:
        self.facts += 1
        if self.facts >= self.last:
            self.crash.set()

    async def _amiss(self, name: str, known: Known) -> list[str]:
        found = []
        promise, fresh = await self.store.create(new("other", key=name), now=3)
        if fresh or promise.id != name:
            found.append(f"its key has {promise.id}")
        if (await self.store.start(name, epoch=1, now=3)).first and known.asked > 1:
            found.append("was started again as if for the first time")
        if known.verdict is not None and promise.value != known.verdict:
            found.append(f"the verdict is {promise.value!r}")
        if not promise.pending and promise.value != known.tried:
            found.append(f"nobody asked for the verdict {promise.value!r}")
        log = [each.data for each in (await self.store.read(name, after=0)).events]
        if not known.logged <= len(log) <= known.asked or log != [event(name, n) for n in range(1, len(log) + 1)]:
            found.append(f"the log is {log}, of which {known.logged} were acknowledged")
        return found


def event(name: str, number: int) -> bytes:
    return f"{name}/{number}".encode()


async def restart_rounds(server: Server, schema: str, rounds: int, seed: int) -> Tally:
    """Crash the server so many times under the writers of one store, and look after each."""
    chance, tally = random.Random(seed), Tally()
    store = PostgresStore(server.url(), schema=schema)
    for number in range(rounds):
        one = Round(server, store, number, chance)
        tally.wrong += await one.run()
        tally.rounds += 1
        tally.facts += one.facts
        tally.unknown += one.unknown
    await store.close()
    return tally
