"""`asyncio` in cells, tasks and threads that outlive their cell, and whose output that is."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest

from tests.acceptance.behaviour.support import HANG, cell, ok, run, still_well

if TYPE_CHECKING:
    from capsule import AsyncSession


@pytest.mark.anyio
async def test_asyncio_run_works_in_a_cell(session: AsyncSession) -> None:
    code = """
        import asyncio
        async def main(n):
            await asyncio.sleep(0)
            return n
        asyncio.run(main(1)), asyncio.run(main(2))
    """
    assert (await ok(session, code)).text == "(1, 2)"
    assert (await ok(session, "await main(3)")).text == "3"
    assert (await ok(session, "asyncio.run(main(4))")).text == "4"


@pytest.mark.anyio
async def test_a_runner_and_a_loop_of_ones_own_work(session: AsyncSession) -> None:
    code = """
        import asyncio
        with asyncio.Runner() as runner:
            a = runner.run(asyncio.sleep(0, "runner"))
        loop = asyncio.new_event_loop()
        b = loop.run_until_complete(asyncio.sleep(0, "loop"))
        loop.close()
        a, b
    """
    assert (await ok(session, code)).text == "('runner', 'loop')"
    assert (await ok(session, "await asyncio.sleep(0, 'session')")).text == "'session'"


@pytest.mark.anyio
async def test_the_sessions_loop_outlives_a_script_that_closes_it(session: AsyncSession) -> None:
    code = """
        import asyncio
        loop = asyncio.get_event_loop()
        value = loop.run_until_complete(asyncio.sleep(0, "ran"))
        loop.close()
        value
    """
    for _ in range(2):
        assert (await ok(session, code)).text == "'ran'"
    assert (await ok(session, "await asyncio.sleep(0, 'awaited')")).text == "'awaited'"


@pytest.mark.anyio
async def test_create_task_works_in_a_synchronous_cell(session: AsyncSession) -> None:
    await ok(session, "import asyncio\ntask = asyncio.create_task(asyncio.sleep(0, 'done'))")
    assert (await ok(session, "await task")).text == "'done'"


@pytest.mark.anyio
async def test_create_task_and_await_in_one_cell(session: AsyncSession) -> None:
    code = """
        import asyncio
        tasks = [asyncio.create_task(asyncio.sleep(0, n)) for n in range(3)]
        [await task for task in tasks]
    """
    assert (await ok(session, code)).text == "[0, 1, 2]"


@pytest.mark.anyio
async def test_all_cells_share_one_loop(session: AsyncSession) -> None:
    await ok(session, "import asyncio\nloop = asyncio.get_running_loop()")
    await ok(session, "asyncio.run(asyncio.sleep(0))")
    code = "await asyncio.sleep(0)\nasyncio.get_running_loop() is loop"
    assert (await ok(session, code)).text == "True"


@pytest.mark.anyio
async def test_locks_and_queues_live_across_cells(session: AsyncSession) -> None:
    await ok(session, "import asyncio\nlock = asyncio.Lock()\nqueue = asyncio.Queue()\nawait lock.acquire()")
    await ok(
        session, "async def put():\n    async with lock: await queue.put('put')\ntask = asyncio.create_task(put())"
    )
    await ok(session, "lock.release()")
    assert (await ok(session, "await queue.get()")).text == "'put'"


@pytest.mark.anyio
@pytest.mark.parametrize("before", ["", "await asyncio.sleep(0)\n"], ids=["threaded", "async"])
async def test_background_tasks_go_on_between_cells(session: AsyncSession, tmp_path: Path, before: str) -> None:
    """All steps are made while no cell runs: a named pipe tells of each."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    code = f"""
        import asyncio, os
        w = os.open({str(fifo)!r}, os.O_WRONLY)
        async def steps():
            for n in range(50):
                await asyncio.sleep(0.001)
                os.write(w, b".")
            os.close(w)
        task = asyncio.create_task(steps())
    """
    await ok(session, cell(code) + "\n" + before)
    steps = b""
    with os.fdopen(reader, "rb", buffering=0) as pipe:
        async with asyncio.timeout(HANG):
            while len(steps) < 50:
                await anyio.wait_readable(pipe)
                steps += pipe.read(100) or b""
    assert (await ok(session, "await task\ntask.done()")).text == "True"


@pytest.mark.anyio
async def test_an_interrupted_cell_leaves_background_tasks_alone(session: AsyncSession) -> None:
    await ok(session, "import asyncio\ntask = asyncio.create_task(asyncio.Event().wait())")
    result = await run(session, "await asyncio.sleep(1000)", timeout=0.2)
    assert result.verdict == "timeout"
    assert (await ok(session, "task.done(), task.cancelled()")).text == "(False, False)"


@pytest.mark.anyio
async def test_an_error_in_a_background_task_is_told_and_harms_no_cell(session: AsyncSession) -> None:
    code = "import asyncio, gc\nasync def bad(): raise ValueError('in the task')\ntask = asyncio.create_task(bad())"
    await ok(session, code)
    result = await ok(session, "await asyncio.wait([task])\nrepr(task.exception())")
    assert result.text == "\"ValueError('in the task')\""
    await still_well(session)
