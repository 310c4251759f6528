"""Rounds in which a service dies on the way of an execution, and what its clients hear from the next one."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from capsule import AsyncSession
from capsule.events import Event, Finished
from capsule_protocol.errors import CapsuleError
from tests.acceptance.durable.dying import IN_THE_STORE, POINTS
from tests.acceptance.serve.support import LONG, Served
from tests.unit.bridge.tally import Tally, Wrong

ALL_POINTS = (*POINTS, *IN_THE_STORE)
EXECUTIONS = 12
"""At once, of which eight are sent ahead to the worker."""
FEW = {"started": EXECUTIONS - 9}
"""How often a point is passed at most, if not once for each execution."""
SCRIPT = Path(__file__).with_name("dying.py")


def serve(directory: Path, point: str, passes: int) -> Served:
    """A service that will die."""
    return Served(directory, under=[sys.executable, "-P", str(SCRIPT), point, str(passes)])


@dataclass
class Round:
    """One life of a service. `heard`: what its client was told, by key."""

    session: AsyncSession
    count: Path
    heard: dict[str, list[Event]] = field(default_factory=dict)
    wrong: list[Wrong] = field(default_factory=list)

    async def ask(self, key: str) -> None:
        """Hear all that is told of the key's code, which notes that it runs."""
        code = f"with open({str(self.count)!r}, 'a') as file: print({key!r}, file=file)\nfor n in range(3): print(n)"
        told = self.heard[key] = []
        try:
            async with self.session.stream(code, key=key) as events:
                async for event in events:
                    told.append(event)  # noqa: PERF401  what came before an error has been told
        except CapsuleError as error:
            self.wrong.append(Wrong("lost", f"{key}, of which {told} was told: {error}"))

    async def look(self, key: str) -> None:
        """Ask once more, and compare."""
        before = self.heard[key]
        await self.ask(key)
        again, runs = self.heard[key], Counter(self.count.read_text().split())[key]
        story = f"{key}, which ran {runs} times: {before} is now {again}"
        if before != again or not again or not fits(again[-1], runs):
            self.wrong.append(Wrong("changed", story))
        if [event.sequence for event in again] != list(range(1, len(again) + 1)):
            self.wrong.append(Wrong("lost", story))
        if runs > 1:
            self.wrong.append(Wrong("doubled", story))


def fits(verdict: Event, runs: int) -> bool:
    """Whether it is a verdict, and one that can be true."""
    if not isinstance(verdict, Finished):
        return False
    if verdict.verdict == "ok":
        return runs == 1
    started = verdict.error is not None and verdict.error.details.get("started")
    return verdict.verdict == "worker_lost" and (bool(started) or not runs)


async def deaths(place: Path, rounds: int, seed: int) -> Tally:
    """So many lives of a service with one store, which die at all points in turn; the next one is asked what was."""
    chance, tally, count = Random(seed), Tally(), place / "count"
    count.touch()

    def served(number: int) -> Served:
        point = ALL_POINTS[number % len(ALL_POINTS)]
        return serve(place / "node", point, chance.randint(1, FEW.get(point, EXECUTIONS)))

    current = served(0)
    try:
        for number in range(rounds):
            async with current.client() as client:
                one = Round(await client.session(), count)
                keys = [f"{number}.{n}" for n in range(EXECUTIONS)]
                current.process.send_signal(signal.SIGUSR1)
                asked = [asyncio.create_task(one.ask(key)) for key in keys]
                tally.survived += not await died(current, asked)
                current = served(number + 1)
                async with asyncio.timeout(LONG):
                    await asyncio.gather(*asked)
                    told = sum(map(len, one.heard.values()))
                    for key in keys:
                        await one.look(key)
                    await one.session.close()
                tally.add(told, one.wrong)
    finally:
        current.close()
    return tally


async def died(served: Served, asked: list[asyncio.Task[None]]) -> bool:
    """Wait until it has died, or has done all; whether it has died by itself."""
    dying = asyncio.ensure_future(asyncio.to_thread(served.process.wait))
    ends: list[asyncio.Future[Any]] = [dying, asyncio.gather(*asked)]
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED, timeout=LONG)
    by_itself = dying.done()
    served.kill()
    await dying
    served.close()
    return by_itself
