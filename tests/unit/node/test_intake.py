"""A few at a time, and each session one after another."""

from __future__ import annotations

import asyncio

import pytest

from capsule.node.durable.intake import Intake
from capsule.node.tasks import Tasks

pytestmark = pytest.mark.anyio


class Guests:
    """Whoever was let in, in order; they stay until they are let go."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake
        self._leave: dict[str, asyncio.Event] = {}
        self.seen: list[str] = []

    async def come(self, *names: str) -> list[asyncio.Task[None]]:
        """The first letter of a name is that of its session. Returns when all are in or wait."""
        coming = [asyncio.create_task(self._visit(name)) for name in names]
        await asyncio.sleep(0)
        return coming

    async def let_go(self, name: str) -> None:
        self._leave[name].set()
        for _ in range(3):  # to be told, to leave, and whoever comes in then to be told
            await asyncio.sleep(0)

    async def _visit(self, name: str) -> None:
        async with self._intake.admitted(name[0]):
            self.seen.append(name)
            self._leave[name] = asyncio.Event()
            await self._leave[name].wait()


async def test_no_more_than_a_few_are_in_it_at_once() -> None:
    guests = Guests(intake := Intake(2))
    await guests.come("a1", "a2", "a3", "a4")
    assert guests.seen == ["a1", "a2"]
    assert len(intake) == 2
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
    guests = Guests(Intake(1))
    await guests.come("a1", "a2", "a3", "a4", "b1", "b2", "c1")
    for name in (order := ["a1", "a2", "b1", "c1", "a3", "b2", "a4"]):
        assert guests.seen[-1] == name
        await guests.let_go(name)
    assert guests.seen == order


async def test_who_is_cancelled_while_waiting_takes_no_place() -> None:
    guests = Guests(intake := Intake(1))
    _, second, _ = await guests.come("a1", "a2", "b1")
    second.cancel()
    await asyncio.wait([second])
    await guests.let_go("a1")
    assert guests.seen == ["a1", "b1"]
    await guests.let_go("b1")
    assert len(intake) == 0
    await guests.come("c1")
    assert guests.seen[-1] == "c1"


async def test_who_is_cancelled_in_the_moment_of_being_let_in_makes_room() -> None:
    guests = Guests(Intake(1))
    first, second, _ = await guests.come("a1", "a2", "b1")
    first.cancel()
    await asyncio.sleep(0)  # it has left: the second one is let in, and has not been told yet
    second.cancel()
    await asyncio.wait([first, second])
    await asyncio.sleep(0)
    assert guests.seen == ["a1", "b1"]


async def test_who_leaves_with_an_error_makes_room() -> None:
    intake = Intake(1)
    with pytest.raises(ZeroDivisionError):
        async with intake.admitted("a"):
            raise ZeroDivisionError
    async with asyncio.timeout(5), intake.admitted("b"):
        pass


async def test_who_is_hurried_waits_for_nobody_and_the_others_wait_until_there_is_room() -> None:
    guests = Guests(intake := Intake(1))
    await guests.come("a1", "b1", "c1", "b2", "c2")
    intake.hurry("b")
    await asyncio.sleep(0)
    assert guests.seen == ["a1", "b1", "b2"]
    await guests.let_go("a1")
    await guests.let_go("b1")
    assert guests.seen == ["a1", "b1", "b2"], "there are still as many as may be"
    await guests.let_go("b2")
    assert guests.seen == ["a1", "b1", "b2", "c1"]
    await guests.let_go("c1")
    assert guests.seen[-1] == "c2"
    intake.hurry("c")  # nobody waits


async def test_all_are_let_in_when_there_is_nothing_to_wait_for() -> None:
    guests = Guests(intake := Intake(1))
    coming = await guests.come("a1", "b1", "c1", "b2")
    coming[2].cancel()
    await asyncio.wait([coming[2]])
    intake.hurry_all()
    await asyncio.sleep(0)
    assert guests.seen == ["a1", "b1", "b2"]
    for name in guests.seen:
        await guests.let_go(name)
    await guests.come("d1", "d2")
    assert guests.seen[3:] == ["d1"], "as many as at first"


async def test_no_room_is_lost_when_what_has_begun_outside_of_a_task_is_cancelled_before_its_first_turn() -> None:
    guests = Guests(intake := Intake(1))
    await guests.come("a1")
    tasks = Tasks()

    async def visit() -> None:
        async with intake.admitted("b"):
            raise AssertionError("it was cancelled")

    tasks.start_now(visit())
    assert len(intake) == 1
    await tasks.close()
    await guests.let_go("a1")
    await guests.come("c1")
    assert guests.seen == ["a1", "c1"]
