"""Rounds of killing a process that writes, and what its store has to have afterwards."""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from capsule_bridge import SqliteStore
from capsule_bridge.sqlite.faults import FaultPoint
from capsule_protocol.errors import CapsuleError
from tests.unit.bridge.load import digest
from tests.unit.bridge.support import new
from tests.unit.bridge.tally import Kind, Tally, Wrong

POINTS: tuple[FaultPoint, ...] = get_args(FaultPoint)
FEW: dict[str, int] = {"before_checkpoint": 8, "checkpointed": 8, "file_written": 12, "file_named": 12}
"""How often a place may be passed before the kill; a round passes these seldom."""
MANY = 150
SIGKILL = 9

Fact = list[Any]


class Victim:
    """The process that is killed round after round: it forks one for each, which costs less than starting it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def round(self, **order: object) -> tuple[list[Fact], int]:
        """The facts that were acknowledged before the end, and the signal that it ended by."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        facts: list[Fact] = []
        for line in self._process.stdout:
            fact = json.loads(line)
            if fact[0] == "end":
                return facts, fact[1]
            facts.append(fact)
        raise AssertionError("the victim's parent is gone")


@contextmanager
def victim(path: Path, mutant: str = "") -> Iterator[Victim]:
    """A victim that writes to this store, and may have one of the mistakes of `mutants`."""
    script = Path(__file__).with_name("victim.py")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(each for each in sys.path if each)}
    command = [sys.executable, "-P", os.fspath(script), os.fspath(path), mutant]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        yield Victim(process)
        assert process.stdin is not None
        process.stdin.close()


async def kill_rounds(
    path: Path, rounds: int, seed: int, mutant: str = "", points: Sequence[FaultPoint] = POINTS
) -> Tally:
    """Kill a writer so many times on one store, at the places in turn, and look after each kill."""
    chance, tally = random.Random(seed), Tally()
    with victim(path, mutant) as one:
        for number in range(rounds):
            point = points[number % len(points)]
            level = "power" if number // len(points) % 2 else "process"
            hits = chance.randint(1, FEW.get(point, MANY))
            order: dict[str, Any] = {
                "round": number,
                "point": point,
                "hits": hits,
                "level": level,
                "seed": chance.randrange(2**30),
            }
            facts, ended = one.round(**order)
            tally.survived += ended != SIGKILL
            assert ended in {SIGKILL, 0}, f"the victim failed in round {order}"
            tally.add(len(facts), await amiss(path, facts))
    return tally


async def amiss(path: Path, facts: list[Fact]) -> list[Wrong]:
    """What the store has not, has otherwise, or has twice."""
    store = SqliteStore(path, "process")
    try:
        parents = {promise.parent for promise in await store.pending(now=9, limit=10**9)}
        inspection = Inspection(store, parents)
        names = sorted({fact[2] for fact in facts if fact[0] == "created"})
        found = await asyncio.gather(*map(inspection.of, facts), *(inspection.of(["log", name]) for name in names))
        return [wrong for wrong in found if wrong]
    finally:
        await store.close()


@dataclass
class Inspection:
    """Compares acknowledged facts with a store; `parents` have pending children."""

    store: SqliteStore
    parents: set[str | None]

    async def of(self, fact: Fact) -> Wrong | None:
        """What is wrong with one fact."""
        what, *rest = fact
        try:
            kind, text = await getattr(self, what)(*rest)
        except CapsuleError as error:
            kind, text = "lost", error.code
        return Wrong(kind, f"{fact}: {text}") if text else None

    async def created(self, key: str, name: str, param: str) -> tuple[Kind, str]:
        promise, fresh = await self.store.create(new("other", key=key, fingerprint=key.encode()), now=1)
        good = promise.id == name and digest(promise.param) == param
        kind: Kind = "lost" if fresh else "changed"
        return kind, "" if good else f"is {promise.id} with {len(promise.param)} bytes"

    async def started(self, name: str) -> tuple[Kind, str]:
        again = await self.store.start(name, epoch=9, now=9)
        return "doubled", "was started again as if for the first time" if again.first else ""

    async def settled(self, name: str, state: str, value: str) -> tuple[Kind, str]:
        promise = await self.store.get(name, now=9)
        if (promise.state, digest(promise.value)) != (state, value):
            return "lost" if promise.pending else "changed", f"is {promise.state} {promise.value[-40:]!r}"
        return "lost", "has a child that is pending" if name in self.parents else ""

    async def logged(self, name: str, last: int) -> tuple[Kind, str]:
        return "lost", "" if (await self.store.read(name, after=0)).last >= last else "the log ends before"

    async def log(self, name: str) -> tuple[Kind, str]:
        """Every event has its own number, and none is missing."""
        log = await self.store.read(name, after=0)
        data = [each.data for each in log.events]
        good = data == [f"{name}/{n}".encode() for n in range(1, log.last + 1)]
        kind: Kind = "doubled" if len(set(data)) < len(data) else "changed"
        return kind, "" if good else f"is {log}"
