"""Work that begins at once and goes on as a task."""

from __future__ import annotations

import asyncio

import pytest

from capsule.node.tasks import Tasks

pytestmark = pytest.mark.anyio

PATIENCE = 60.0


async def test_it_runs_at_once_up_to_where_it_waits_and_then_goes_on_with_what_it_waited_for() -> None:
    tasks, done = Tasks(), list[object]()
    gate = asyncio.get_running_loop().create_future()
    over = asyncio.Event()

    async def work() -> None:
        done.append("begun")
        done.append(await gate)
        await asyncio.sleep(0)
        done.append("over")
        over.set()

    tasks.start_now(work())
    assert done == ["begun"]
    gate.set_result("answer")  # before the task has had its first turn
    await asyncio.wait_for(over.wait(), PATIENCE)
    assert done == ["begun", "answer", "over"]


async def test_what_never_waits_needs_no_task() -> None:
    tasks, done = Tasks(), list[str]()

    async def work() -> None:
        done.append("over")

    tasks.start_now(work())
    assert done == ["over"]
    assert not tasks._tasks


async def test_it_hears_of_what_failed_and_may_go_on() -> None:
    tasks, heard = Tasks(), asyncio.Event()
    gate = asyncio.get_running_loop().create_future()

    async def work() -> None:
        with pytest.raises(OSError, match="full"):
            await gate
        await asyncio.sleep(0)
        heard.set()

    tasks.start_now(work())
    gate.set_exception(OSError("full"))
    await asyncio.wait_for(heard.wait(), PATIENCE)


@pytest.mark.parametrize("turns", [0, 3])
async def test_its_owner_cancels_it_wherever_it_waits(turns: int) -> None:
    tasks, ended = Tasks(), list[str]()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise
        finally:
            ended.append("cleaned up")

    tasks.start_now(work())
    for _ in range(turns):
        await asyncio.sleep(0)
    await tasks.close()
    assert ended == ["cancelled", "cleaned up"]
