"""Clean-up goes to its end, however often its caller is cancelled."""

from __future__ import annotations

import asyncio

import anyio
import pytest

from capsule.client.finish import finish

pytestmark = pytest.mark.anyio


async def test_it_returns_and_raises_what_the_work_does() -> None:
    async def work(number: int) -> float:
        return 1 / number

    assert await finish(work(2)) == 0.5
    with pytest.raises(ZeroDivisionError):
        await finish(work(0))


async def test_a_cancellation_waits_for_the_work_and_is_raised_then() -> None:
    begun, go, done = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def work() -> None:
        begun.set()
        await go.wait()
        done.set()

    task = asyncio.ensure_future(finish(work()))
    await begun.wait()
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0)
    assert not task.done()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done.is_set()


async def test_a_cancelled_scope_waits_for_the_work() -> None:
    done = asyncio.Event()

    async def work() -> None:
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        done.set()

    with anyio.CancelScope() as scope:
        scope.cancel()
        await finish(work())
    assert done.is_set()


async def test_work_that_is_cancelled_itself_says_so() -> None:
    async def work() -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await finish(work())
