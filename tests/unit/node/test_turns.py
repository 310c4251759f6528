"""A few at a time, and each session one after another."""

from __future__ import annotations

import asyncio

import pytest

from capsule.node.durable.turns import Turns

pytestmark = pytest.mark.anyio


class Guests:
    """Whoever has had a turn, in order; they keep theirs until they are let go."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._leave: dict[str, asyncio.Event] = {}
        self.seen: list[str] = []

    async def come(self, *names: str) -> list[asyncio.Task[None]]:
        """The first letter of a name is that of its session. Returns when all have a turn or wait for one."""
        coming = [asyncio.create_task(self._visit(name)) for name in names]
        await asyncio.sleep(0)
        return coming

    async def let_go(self, name: str) -> None:
        self._leave[name].set()
        for _ in range(3):  # to be told, to pass it on, and whoever has it then to be told
            await asyncio.sleep(0)

    async def _visit(self, name: str) -> None:
        async with self._turns.turn(name[0]):
            self.seen.append(name)
            self._leave[name] = asyncio.Event()
            await self._leave[name].wait()


async def test_no_more_than_a_few_have_a_turn_at_once() -> None:
    guests = Guests(turns := Turns(2))
    await guests.come("a1", "a2", "a3", "a4")
    assert guests.seen == ["a1", "a2"]
    assert len(turns) == 2
    await guests.let_go("a2")
    assert guests.seen == ["a1", "a2", "a3"]
    await guests.let_go("a1")
    await guests.let_go("a3")
    await guests.let_go("a4")
    coming = await guests.come("b1", "b2", "b3")
    assert guests.seen[4:] == ["b1", "b2"], "as many as at first"
    for task in coming:
        task.cancel()


async def test_sessions_take_turns_and_each_keeps_its_order() -> None:
    guests = Guests(Turns(1))
    await guests.come("a1", "a2", "a3", "a4", "b1", "b2", "c1")
    for name in (order := ["a1", "a2", "b1", "c1", "a3", "b2", "a4"]):
        assert guests.seen[-1] == name
        await guests.let_go(name)
    assert guests.seen == order


async def test_who_is_cancelled_while_waiting_takes_no_turn() -> None:
    guests = Guests(turns := Turns(1))
    _, second, _ = await guests.come("a1", "a2", "b1")
    second.cancel()
    await asyncio.wait([second])
    await guests.let_go("a1")
    assert guests.seen == ["a1", "b1"]
    await guests.let_go("b1")
    assert len(turns) == 0
    await guests.come("c1")
    assert guests.seen[-1] == "c1"


async def test_who_is_cancelled_in_the_moment_of_its_turn_passes_it_on() -> None:
    guests = Guests(Turns(1))
    first, second, _ = await guests.come("a1", "a2", "b1")
    first.cancel()
    await asyncio.sleep(0)  # it has left: the turn is the second one's, who has not been told yet
    second.cancel()
    await asyncio.wait([first, second])
    await asyncio.sleep(0)
    assert guests.seen == ["a1", "b1"]


async def test_an_error_ends_a_turn() -> None:
    turns = Turns(1)
    with pytest.raises(ZeroDivisionError):
        async with turns.turn("a"):
            raise ZeroDivisionError
    async with asyncio.timeout(5), turns.turn("b"):
        pass
