"""Concurrent calls on one promise, some of them canceled: there is an order that explains all answers."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from capsule_bridge import PromiseStore
from tests.unit.bridge.caller import asked
from tests.unit.bridge.linear import Call, explained
from tests.unit.bridge.support import KINDS, open_kind

pytestmark = pytest.mark.anyio

PROMISES = 150
CALLERS = 6
NEVER = float("inf")
YES = True


@pytest.fixture(params=KINDS)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[PromiseStore]:
    store = open_kind(request.param, tmp_path)
    yield store
    await store.close()


async def recorded(store: PromiseStore, name: str, chance: random.Random) -> list[Call]:
    """What some callers asked of one promise, and when they heard what."""
    clock, history = itertools.count(), []

    async def caller(number: int) -> None:
        # One after another, so that some come while others wait for their commit, and some after it.
        for turn in range(chance.randrange(1, 4)):
            await ask(f"v{number}.{turn}")

    async def ask(argument: str) -> None:
        for _ in range(chance.randrange(chance.randrange(1, 5))):
            await asyncio.sleep(0)
        what = chance.choice(["create", "settle", "start", "get", "get"])
        begin = next(clock)
        call = asyncio.ensure_future(asked(store, what, name, argument))
        if chance.random() < 0.1:
            await asyncio.sleep(0)
            call.cancel()
        try:
            answer, end = await call, float(next(clock))
        except asyncio.CancelledError:
            answer, end = None, NEVER
        history.append(Call(what, argument, answer, begin, end))

    await asyncio.gather(*(caller(number) for number in range(CALLERS)))
    # Those that come later have to agree with what was heard before.
    begin = next(clock)
    history.append(Call("get", "", await asked(store, "get", name, ""), begin, float(next(clock))))
    return history


async def test_some_order_explains_every_history(store: PromiseStore) -> None:
    chance = random.Random(5)
    histories = await asyncio.gather(*(recorded(store, f"p{n}", chance) for n in range(PROMISES)))
    for history in histories:
        assert explained(history), history
    answers = [call.answer for history in histories for call in history]
    # Histories in which nothing contended would prove nothing.
    assert {True, False, "pending", "promise_unknown"} <= {
        answer for answer in answers if not isinstance(answer, tuple)
    }
    assert {decided for answer in answers if isinstance(answer, tuple) for decided in answer[:1]} == {True, False}


@pytest.mark.parametrize(
    "history",
    [
        [Call("create", "", YES, 0, 1), Call("create", "", YES, 2, 3)],
        [Call("create", "", YES, 0, 1), Call("get", "", "promise_unknown", 2, 3)],
        [
            Call("create", "", YES, 0, 1),
            Call("settle", "a", (True, "a"), 2, 5),
            Call("settle", "b", (True, "b"), 3, 4),
        ],
        [Call("create", "", YES, 0, 1), Call("settle", "a", (True, "a"), 2, 3), Call("get", "", "pending", 4, 5)],
        [Call("create", "", YES, 0, 1), Call("start", "", YES, 2, 5), Call("start", "", YES, 3, 4)],
    ],
    ids=["made twice", "forgotten", "settled twice", "stale read", "started twice"],
)
def test_the_check_sees_what_no_order_explains(history: list[Call]) -> None:
    assert not explained(history)


def test_the_check_accepts_an_order_other_than_that_of_the_beginnings() -> None:
    history = [
        Call("create", "", YES, 0, 1),
        Call("get", "", "b", 2, 9),
        Call("settle", "a", (False, "b"), 3, 8),
        Call("settle", "b", (True, "b"), 4, 7),
        Call("settle", "c", None, 5, NEVER),
    ]
    assert explained(history)
