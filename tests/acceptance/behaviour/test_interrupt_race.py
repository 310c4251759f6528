"""A thousand interrupts at random moments: each execution has its own verdict, nothing else is hit, nothing is lost."""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING

import pytest

from capsule.events import Event, Status
from tests.acceptance.behaviour.support import HANG, ok

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from capsule import AsyncClient, AsyncSession, Result

GROUPS, ROUNDS = 10, 100

CELLS = [
    "begun[{n}] = 1\nbegun[{n}] = 2",
    "begun[{n}] = 1\nprint('cell {n}')\nbegun[{n}] = 2",
    "begun[{n}] = 1\nfor i in range(300): print('cell {n}', i)\nbegun[{n}] = 2",
    "begun[{n}] = 1\nos.write(1, b'cell {n}\\n' * 3000)\nbegun[{n}] = 2",
    "begun[{n}] = 1\nimport asyncio\nawait asyncio.sleep(0.001)\nprint('cell {n}')\nbegun[{n}] = 2",
    "begun[{n}] = 1\nfor i in range(20000): pass\nbegun[{n}] = 2",
    "begun[{n}] = 1\nfor i in range(50): display(i)\nbegun[{n}] = 2",
    "begun[{n}] = 1\ntime.sleep(0.001)\nbegun[{n}] = 2\n{n}",
]


@pytest.fixture
async def session(client: AsyncClient) -> AsyncIterator[AsyncSession]:
    async with client.session(interrupt_grace=10.0) as session:
        await ok(session, "import os, time\nbegun = {}\nanchor = object()\nwhole = id(anchor), id(globals())")
        yield session


async def pause(seconds: float) -> None:
    """Let the loop run for this long. Timers alone are too coarse to meet the moments between two system calls."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        await asyncio.sleep(0)


def noting(steps: list[str]) -> Callable[[Event], None]:
    """A watcher of the steps that an interrupt takes."""

    def watch(event: Event) -> None:
        if isinstance(event, Status):
            steps.append(event.state)

    return watch


def check(n: int, result: Result) -> None:
    """The verdict is one of two, and only the cell itself has written."""
    assert result.verdict in {"ok", "interrupted"}, (n, result.verdict, result.error, result.stderr)
    assert result.stderr == "", (n, result.stderr)
    assert set(result.stdout.replace(f"cell {n}", "").split()) <= {str(i) for i in range(300)}, (n, result.stdout)
    if result.verdict == "interrupted":
        assert result.error is not None
        assert result.error.code == "execution_interrupted"


@pytest.mark.anyio
@pytest.mark.parametrize("group", range(GROUPS))
async def test_an_interrupt_at_a_random_moment_hits_its_own_cell_or_nothing(session: AsyncSession, group: int) -> None:
    chance = random.Random(group)
    verdicts: dict[int, str] = {}
    async with asyncio.timeout(2 * HANG):
        for n in range(ROUNDS):
            steps: list[str] = []
            task = asyncio.ensure_future(session.run(chance.choice(CELLS).format(n=n), on_event=noting(steps)))
            await pause(chance.uniform(0, 0.003) * chance.random())
            hit = await session.interrupt()
            result = await task
            check(n, result)
            assert steps in ([], ["interrupting"]), f"round {n}: the first interrupt got lost"
            verdicts[n] = result.verdict
            assert hit or result.verdict == "ok", f"round {n}: interrupted, though nothing was"
            after = await session.run(f"print('after {n}')\n{n}")
            assert (after.verdict, after.stdout, after.stderr, after.text) == ("ok", f"after {n}\n", "", str(n))
    await whole(session, verdicts)


@pytest.mark.anyio
@pytest.mark.parametrize("group", range(GROUPS))
async def test_of_two_queued_cells_one_interrupt_hits_at_most_one(session: AsyncSession, group: int) -> None:
    chance = random.Random(1000 + group)
    async with asyncio.timeout(2 * HANG):
        for n in range(0, ROUNDS, 2):
            tasks = [asyncio.ensure_future(session.run(chance.choice(CELLS).format(n=n + i))) for i in (0, 1)]
            await pause(chance.uniform(0, 0.003) * chance.random())
            hit = await session.interrupt()
            results = [await task for task in tasks]
            for i, result in enumerate(results):
                check(n + i, result)
            assert [result.verdict for result in results].count("interrupted") <= int(hit)
    await whole(session, {})


async def whole(session: AsyncSession, verdicts: dict[int, str]) -> None:
    """The namespace is the same object with everything in it; cells that ended well ran to their end."""
    assert (await ok(session, "whole == (id(anchor), id(globals()))")).text == "True"
    finished = {n for n, verdict in verdicts.items() if verdict == "ok"}
    done = await ok(session, "sorted(n for n in begun if begun[n] == 2)")
    assert finished <= set(map(int, done.text.strip("[]").replace(",", " ").split()))
