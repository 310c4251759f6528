"""Nodes and workers that are killed anywhere, in simulated time, over the real bridge. A seed plays the same again."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence

import pytest

from capsule_bridge import Fence, Log, Promise, Settled, Settlement, promise_id, rules
from capsule_bridge.store import PAGE
from capsule_protocol.errors import SessionError
from tests.unit.bridge.simulation.node import Node, until_committed
from tests.unit.bridge.simulation.run import Parts, WentWrong, play
from tests.unit.bridge.simulation.store import SimStore
from tests.unit.bridge.simulation.world import LOST, OK, Request, Worker, World

SEEDS = 2_000
TWICE = 100
FEW = 400
"""A mistake has to be found in so many seeds."""


class Sharing(Node):
    """One of several nodes that share a store: it takes a promise over, and runs what nobody has started before."""

    async def begin(self, promise: Promise) -> Fence | None:
        taken, first = await until_committed(
            lambda: self.bridge.store.start(promise.id, epoch=self.epoch, now=int(self.world.loop.time() * 1000))
        )
        if taken.pending and not first:
            log = await until_committed(lambda: self.bridge.store.read(promise.id, after=0))
            await self.tell(promise.id, log.last, [LOST], taken.fence)
        return taken.fence if taken.pending and first else None

    async def rule(self, promise: Promise) -> None:
        await self.begin(promise)

    async def execute(self, promise: Promise) -> None:
        if promise.started_at is not None and promise.epoch != self.epoch:
            await self.rule(promise)
        else:
            await super().execute(promise)


SHARING = Parts(Sharing, zombies=True)


def seen_in(worlds: list[World]) -> Counter[object]:
    """What happened how often."""
    return Counter(part for world in worlds for _, _, *what in world.trace for part in (what[0], what[-1]))


def test_no_seed_loses_doubles_or_changes_anything() -> None:
    seen = seen_in([play(seed) for seed in range(SEEDS)])
    # Runs in which nobody dies, or nothing runs well, would prove nothing.
    assert min(seen["the node dies"], seen["a worker dies"], seen["runs"], seen[OK], seen[LOST]) > SEEDS / 10, seen
    assert seen["fenced"] == 0


def test_a_seed_plays_the_same_again() -> None:
    for seed in range(TWICE):
        assert play(seed).trace == play(seed).trace


def test_nodes_that_share_a_store_are_kept_apart_by_fences() -> None:
    worlds = [play(seed, SHARING) for seed in range(SEEDS // 4)]
    assert seen_in(worlds)["fenced"] > SEEDS / 100


# Mistakes


class LooksFirst(Node):
    """Checks whether there is such a promise, and then acts."""

    async def accept(self, request: Request) -> Promise:
        try:
            found = await self.bridge.get(promise_id(request.key))
            if found.param != b"%d" % request.code:
                raise SessionError("idempotency_conflict", "it was used before with another request")
            return found
        except SessionError as error:
            if error.code != "promise_unknown":
                raise
            promise = await super().accept(request)
            self.line_up(promise)
            return promise

    def is_to_be_run(self, promise: Promise, *, fresh: bool) -> bool:  # noqa: ARG002
        return False


class BelievesFailures(Node):
    """Runs only what it was told to be new."""

    def is_to_be_run(self, promise: Promise, *, fresh: bool) -> bool:  # noqa: ARG002
        return fresh


class RunsWhatItFinds(Node):
    """Runs once more what an earlier node had started."""

    async def rule(self, promise: Promise) -> None:
        self.line_up(promise)


class StartsTooLate(Node):
    """Sends the code to the worker, and then says so."""

    sent: Worker | None = None

    async def begin(self, promise: Promise) -> Fence | None:
        self.sent = super().send(promise)
        return await super().begin(promise)

    def send(self, promise: Promise) -> Worker:
        sent, self.sent = self.sent, None
        return sent or super().send(promise)


class AnswersTooEarly(SimStore):
    """Acknowledges events, and then commits them, before anything else that comes later."""

    late: asyncio.Task[int] | None = None

    async def append(self, id: str, events: Sequence[bytes], *, after: int, fence: Fence | None = None) -> int:
        await self.written()
        self.late = asyncio.ensure_future(super().append(id, events, after=after, fence=fence))
        return after + len(events)

    async def settle(self, *settlements: Settlement, now: int) -> list[Settled]:
        await self.written()
        return await super().settle(*settlements, now=now)

    async def read(self, id: str, *, after: int, limit: int = PAGE) -> Log:
        await self.written()
        return await super().read(id, after=after, limit=limit)

    async def written(self) -> None:
        if self.late is not None:
            await asyncio.wait([self.late])


MISTAKES: dict[str, Parts] = {
    "looks first": Parts(LooksFirst),
    "believes failures": Parts(BelievesFailures),
    "runs what it finds": Parts(RunsWhatItFinds),
    "starts too late": Parts(StartsTooLate),
    "answers too early": Parts(store=AnswersTooEarly),
}


def is_found(parts: Parts) -> bool:
    try:
        for seed in range(FEW):
            play(seed, parts)
    except WentWrong:
        return True
    return False


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_found(mistake: str) -> None:
    assert is_found(MISTAKES[mistake])


def test_nodes_that_look_at_no_fence_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "check_fence", lambda _promise, _fence: None)
    assert is_found(SHARING)
