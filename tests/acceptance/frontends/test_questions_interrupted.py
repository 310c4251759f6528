"""An interrupt ends the question that is answered, and neither the code behind it nor any other question."""

from __future__ import annotations

import asyncio
import os
import random
import time
from typing import TYPE_CHECKING, Any

import pytest

from capsule import AsyncSession, CapsuleError
from tests.acceptance.behaviour.support import HANG, begin, ok

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from pathlib import Path

    from capsule import AsyncClient

pytestmark = pytest.mark.anyio

ROUNDS = 200
ASKED = """
    import time
    times = []
    class Asked:
        def takes_long(self):
            times.append(1)
            with open({path!r}, 'w') as told:
                told.write('go')
            time.sleep(1000)
        def __dir__(self):
            self.takes_long()
            return []
        def getdoc(self):
            self.takes_long()
    class Quick:
        def __dir__(self):
            for _ in range(20_000): pass
            return ['field']
    d, quick = Asked(), Quick()
"""
QUESTIONS: dict[str, Callable[[AsyncSession], Coroutine[Any, Any, Any]]] = {
    "complete": lambda session: session.complete("d."),
    "complete a line": lambda session: session.complete("1\nd."),
    "inspect": lambda session: session.inspect("d"),
}


class Slow:
    """Where the objects of a session tell that they are asked, and take long."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.code = ASKED.format(path=str(path))
        self.descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK)

    async def ask(self, session: AsyncSession, name: str) -> asyncio.Task[Any]:
        """Ask a question, and come back when it is being answered."""
        task = asyncio.ensure_future(QUESTIONS[name](session))
        loop, told = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self.descriptor, told.set)
        try:
            async with asyncio.timeout(HANG):
                await told.wait()
        finally:
            loop.remove_reader(self.descriptor)
        assert os.read(self.descriptor, 100) == b"go"
        return task


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[Slow]:
    made = Slow(tmp_path / "told")
    yield made
    os.close(made.descriptor)


async def code_of(asking: asyncio.Task[Any]) -> str:
    """Why a question has no answer, or ""."""
    async with asyncio.timeout(HANG):
        try:
            await asking
        except CapsuleError as error:
            return error.code
    return ""


@pytest.mark.parametrize("name", QUESTIONS)
async def test_an_interrupt_ends_a_question_and_nothing_behind_it(session: AsyncSession, slow: Slow, name: str) -> None:
    await ok(session, slow.code)
    asking = await slow.ask(session, name)
    behind = [await begin(session, f"print({n})", until=None) for n in range(2)]
    assert await session.interrupt()
    assert await code_of(asking) == "execution_interrupted"
    for n, running in enumerate(behind):
        result = await running.result()
        assert (result.verdict, result.stdout) == ("ok", f"{n}\n")
    assert (await ok(session, "len(times)")).text == "1"


@pytest.mark.parametrize("name", QUESTIONS)
async def test_an_interrupt_ends_a_question_behind_which_nothing_waits(
    session: AsyncSession, slow: Slow, name: str
) -> None:
    await ok(session, slow.code)
    asking = await slow.ask(session, name)
    assert await session.interrupt()
    assert await code_of(asking) == "execution_interrupted"
    assert not await session.interrupt()
    assert (await ok(session, "len(times)")).text == "1"


async def test_an_interrupt_ends_one_of_two_questions(session: AsyncSession, slow: Slow) -> None:
    await ok(session, slow.code)
    asking = await slow.ask(session, "complete")
    behind = asyncio.ensure_future(session.complete("quick."))
    assert await session.interrupt()
    assert await code_of(asking) == "execution_interrupted"
    assert (await behind).matches == ["field"]


async def test_a_question_whose_asker_has_left_can_be_interrupted(session: AsyncSession, slow: Slow) -> None:
    await ok(session, slow.code)
    asking = await slow.ask(session, "complete")
    asking.cancel()
    await asyncio.wait([asking])
    behind = await begin(session, "1", until=None)
    assert await session.interrupt()
    assert (await behind.result()).verdict == "ok"


async def test_a_question_that_goes_on_is_interrupted_again(anywhere: AsyncClient, slow: Slow) -> None:
    code = """
        class Stubborn(Asked):
            def takes_long(self):
                try: super().takes_long()
                except BaseException: time.sleep(1000)
        d = Stubborn()
    """
    async with anywhere.session(interrupt_grace=0.2) as session:
        await ok(session, slow.code)
        await ok(session, code)
        asking = await slow.ask(session, "complete")
        assert await session.interrupt()
        assert await code_of(asking) == "execution_interrupted"
        assert (await ok(session, "len(times)")).text == "1"


async def test_time_that_runs_out_behind_a_question_ends_both(session: AsyncSession, slow: Slow) -> None:
    """The worker was killed: it did not begin what it was to end."""
    await ok(session, slow.code)
    before = await session.info()
    asking = await slow.ask(session, "complete")
    behind = await begin(session, "print('never')", until=None, timeout=0.1)
    result = await behind.result()
    assert (result.verdict, result.stdout) == ("timeout", "")
    assert await code_of(asking) == "execution_interrupted"
    assert (await session.info()).pid == before.pid


async def pause(seconds: float) -> None:
    """Let the loop run for this long: timers alone are too coarse to meet the moments between two system calls."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        await asyncio.sleep(0)


async def test_an_interrupt_at_a_random_moment_ends_the_question_or_nothing(session: AsyncSession, slow: Slow) -> None:
    await ok(session, slow.code)
    chance = random.Random(1)
    ended = 0
    for n in range(ROUNDS):
        asking = asyncio.ensure_future(session.complete("quick."))
        await pause(chance.uniform(0, 0.003) * chance.random())
        hit = await session.interrupt()
        code = await code_of(asking)
        assert code in {"", "execution_interrupted"}
        assert hit or not code, f"round {n}: interrupted, though nothing was"
        ended += bool(code)
        result = await session.run(f"print({n})")
        assert (result.verdict, result.stdout, result.stderr) == ("ok", f"{n}\n", ""), f"round {n}"
    assert 0 < ended < ROUNDS


@pytest.mark.parametrize("name", QUESTIONS)
async def test_an_interrupt_at_a_random_moment_is_not_lost(client: AsyncClient, name: str) -> None:
    async with client.session() as session:
        await ok(session, ASKED.format(path=os.devnull))
        chance = random.Random(2)
        for n in range(ROUNDS):
            asking = asyncio.ensure_future(QUESTIONS[name](session))
            await asyncio.sleep(0)
            behind = await begin(session, f"print({n})", until=None)
            await pause(chance.uniform(0, 0.003) * chance.random())
            assert await session.interrupt()
            assert await code_of(asking) == "execution_interrupted"
            assert (await behind.result()).stdout == f"{n}\n"
