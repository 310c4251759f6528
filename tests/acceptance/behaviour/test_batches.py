"""Several executions may be submitted at once: they run in order, can be cancelled, and a batch stops on an error."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.acceptance.behaviour.support import HANG, begin, ok, still_well

if TYPE_CHECKING:
    from capsule import AsyncSession


@pytest.mark.anyio
async def test_executions_run_in_the_order_of_submission(session: AsyncSession) -> None:
    await ok(session, "order = []")
    executions = [session.submit(f"order.append({n})\nprint({n})\n{n}") for n in range(100)]
    async with asyncio.timeout(HANG):
        results = [await execution.result() for execution in reversed(executions)]
    assert [result.text for result in reversed(results)] == [str(n) for n in range(100)]
    assert [result.stdout for result in reversed(results)] == [f"{n}\n" for n in range(100)]
    assert (await ok(session, "order == list(range(100))")).text == "True"


@pytest.mark.anyio
async def test_stop_on_error_cancels_the_rest_of_its_batch_with_a_verdict(session: AsyncSession) -> None:
    async with asyncio.timeout(HANG):
        results = await session.run_all(["a = 1", "1 / 0", "a = 2", "a = 3"])
    assert [result.verdict for result in results] == ["ok", "error", "interrupted", "interrupted"]
    assert {result.error.code for result in results[2:] if result.error} == {"execution_cancelled"}
    assert (await ok(session, "a")).text == "1"


@pytest.mark.anyio
async def test_without_stop_on_error_the_rest_runs(session: AsyncSession) -> None:
    async with asyncio.timeout(HANG):
        results = await session.run_all(["a = 1", "1 / 0", "a = 2"], stop_on_error=False)
    assert [result.verdict for result in results] == ["ok", "error", "ok"]
    assert (await ok(session, "a")).text == "2"


@pytest.mark.anyio
async def test_an_error_stops_no_other_batch(session: AsyncSession) -> None:
    one = [session.submit(code, batch="one", stop_on_error=True) for code in ("1 / 0", "a = 1")]
    two = [session.submit(code, batch="two", stop_on_error=True) for code in ("b = 1", "b")]
    async with asyncio.timeout(HANG):
        verdicts = [(await execution.result()).verdict for execution in one + two]
    assert verdicts == ["error", "interrupted", "ok", "ok"]


@pytest.mark.anyio
async def test_a_queued_execution_can_be_cancelled(session: AsyncSession) -> None:
    running = await begin(session, "print('go', flush=True)\nwhile True: pass")
    queued, kept = session.submit("print('never')"), session.submit("print('kept')")
    assert await session.cancel(queued.execution_id)
    async with asyncio.timeout(HANG):
        cancelled = await queued.result()
    assert (cancelled.verdict, cancelled.stdout) == ("interrupted", "")
    assert cancelled.error is not None
    assert cancelled.error.code == "execution_cancelled"
    assert not running.task.done()
    await session.interrupt()
    assert (await running.result()).verdict == "interrupted"
    assert (await kept.result()).stdout == "kept\n"


@pytest.mark.anyio
async def test_a_running_execution_can_be_cancelled_by_its_id(session: AsyncSession) -> None:
    execution = session.submit("print('go', flush=True)\nwhile True: pass")
    async with asyncio.timeout(HANG):
        async for event in execution.events():
            if "go" in getattr(event, "text", ""):
                assert await session.cancel(execution.execution_id)
        result = await execution.result()
    assert result.verdict == "interrupted"
    await still_well(session)


@pytest.mark.anyio
async def test_a_caller_that_is_cancelled_interrupts_its_execution(session: AsyncSession) -> None:
    running = await begin(session, "kept = 1\nprint('go', flush=True)\nwhile True: pass")
    running.task.cancel()
    assert (await ok(session, "kept")).text == "1"


@pytest.mark.anyio
async def test_leaving_a_stream_early_cancels_its_execution(session: AsyncSession) -> None:
    async with session.stream("kept = 1\nprint('go', flush=True)\nwhile True: pass") as events:
        async for event in events:
            if "go" in getattr(event, "text", ""):
                break
    assert (await ok(session, "kept")).text == "1"
