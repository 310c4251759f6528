"""Contender `capsule`: library mode, through the asynchronous client, as a user would write it."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from capsule import AsyncClient, AsyncSession
from capsule.events import Finished, Output
from capsule_bench import cells
from capsule_bench.figures import milliseconds, per_second
from capsule_bench.machine import memory
from capsule_bench.model import Load, Measured

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine


@asynccontextmanager
async def session() -> AsyncIterator[AsyncSession]:
    """A session that has answered, so that what follows is not part of its start."""
    async with AsyncClient() as client, await client.session() as running:
        await run_ok(running, cells.IMPORT_ASYNCIO)
        yield running


async def run_ok(running: AsyncSession, code: str, text: str = "") -> None:
    """One execution that must end well and show `text`."""
    result = await running.run(code)
    cells.expect(f"verdict of {code!r}", result.verdict, "ok")
    cells.expect(f"value of {code!r}", result.text, text)


def one_plus_one(load: Load) -> Measured:
    """Milliseconds for `1+1`."""
    return asyncio.run(_repeat(load, cells.ONE_PLUS_ONE, milliseconds, text="2"))


def sleep_zero(load: Load) -> Measured:
    """Milliseconds for a cell that awaits."""
    return asyncio.run(_repeat(load, cells.SLEEP_ZERO, milliseconds))


def pipelined(load: Load) -> Measured:
    """Executions per second with a window of requests in flight."""
    return asyncio.run(_sample(load, _pipeline, per_second(load.size)))


def interrupt(load: Load) -> Measured:
    """Milliseconds from the interrupt of a busy loop until its verdict."""
    return asyncio.run(_sample(load, _interrupt, milliseconds))


def printed_lines(load: Load) -> Measured:
    """Lines per second, all of them received."""
    code, wanted = cells.lines(load.size)
    return asyncio.run(_output(load, code, wanted))


def bulk_output(load: Load) -> Measured:
    """Megabytes per second, all of them received."""
    code, wanted = cells.megabytes(load.size)
    return asyncio.run(_output(load, code, wanted))


def big_result(load: Load) -> Measured:
    """Milliseconds for a cell whose value is a long string."""
    code, wanted = cells.long_string(load.size)
    return asyncio.run(_repeat(load, code, milliseconds, text=wanted))


def start(load: Load) -> Measured:
    """Milliseconds from nothing (no client, no zygote) to the first result."""
    return asyncio.run(_start(load))


async def _start(load: Load) -> Measured:
    values = []
    for _ in range(load.warmup + load.samples):
        begin = time.perf_counter()
        async with AsyncClient() as client, await client.session() as running:
            result = await running.run(cells.ONE_PLUS_ONE)
            values.append(milliseconds(time.perf_counter() - begin))
            cells.expect("first value", result.text, "2")
            used = memory()
    return Measured(values[load.warmup :], used)


async def _repeat(load: Load, code: str, figure: Callable[[float], float], *, text: str = "") -> Measured:
    async def once(running: AsyncSession, _: int) -> float:
        begin = time.perf_counter()
        result = await running.run(code)
        taken = time.perf_counter() - begin
        cells.expect("verdict", result.verdict, "ok")
        cells.expect("value", result.text, text)
        cells.expect("output", result.stdout, "")
        return taken

    return await _sample(load, once, figure)


async def _output(load: Load, code: str, wanted: str) -> Measured:
    async def once(running: AsyncSession, _: int) -> float:
        return await received(running, code, wanted)

    return await _sample(load, once, per_second(load.size))


async def received(running: AsyncSession, code: str, wanted: str) -> float:
    """Seconds until all output of the code and its verdict are there."""
    pieces, verdict = [], ""
    begin = time.perf_counter()
    async with running.stream(code) as events:
        async for event in events:
            if isinstance(event, Output):
                pieces.append(event.text)
            elif isinstance(event, Finished):
                verdict = event.verdict
    taken = time.perf_counter() - begin
    cells.expect("verdict", verdict, "ok")
    cells.expect("output", "".join(pieces), wanted)
    return taken


async def _sample(
    load: Load,
    once: Callable[[AsyncSession, int], Coroutine[None, None, float]],
    figure: Callable[[float], float],
) -> Measured:
    """Take the seconds of `once` again and again in one session; `figure` makes a sample of each."""
    async with session() as running:
        values = [figure(await once(running, load.size)) for _ in range(load.warmup + load.samples)]
        return Measured(values[load.warmup :], memory())


async def _pipeline(running: AsyncSession, size: int) -> float:
    await run_ok(running, cells.COUNT_FROM_ZERO)
    begin = time.perf_counter()
    waiting = deque(running.submit(cells.COUNT) for _ in range(min(size, cells.WINDOW)))
    unsent = size - len(waiting)
    while waiting:
        result = await waiting.popleft().result()
        cells.expect("verdict", result.verdict, "ok")
        if unsent:
            waiting.append(running.submit(cells.COUNT))
            unsent -= 1
    taken = time.perf_counter() - begin
    await run_ok(running, cells.COUNTED, str(size))
    return taken


async def _interrupt(running: AsyncSession, _: int) -> float:
    async with running.stream(cells.SPIN) as events:
        async for event in events:
            if isinstance(event, Output):
                break
        begin = time.perf_counter()
        await running.interrupt()
        verdict = ""
        async for event in events:
            if isinstance(event, Finished):
                verdict = event.verdict
        taken = time.perf_counter() - begin
    cells.expect("verdict", verdict, "interrupted")
    await run_ok(running, cells.ONE_PLUS_ONE, "2")
    return taken
