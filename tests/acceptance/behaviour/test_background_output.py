"""Whoever writes, the output belongs to the cell that started the writer, also when that cell has long ended."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from capsule.events import Event, Output
from tests.acceptance.behaviour.support import HANG, begin, cell, ok

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from capsule import AsyncClient, AsyncSession


class Late:
    """The output that came after the verdict of its execution, by execution."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}
        self._more = asyncio.Event()

    def __call__(self, event: Event) -> None:
        if isinstance(event, Output):
            self.texts[event.execution_id] = self.texts.get(event.execution_id, "") + event.text
            self._more.set()

    async def wait_for(self, execution_id: str, text: str) -> None:
        async with asyncio.timeout(HANG):
            while text not in self.texts.get(execution_id, ""):
                self._more.clear()
                await self._more.wait()


@pytest.fixture
def late() -> Late:
    return Late()


@pytest.fixture
async def session(client: AsyncClient, late: Late) -> AsyncIterator[AsyncSession]:
    async with client.session(on_background=late) as session:
        await ok(session, "import asyncio, os, sys, threading, time")
        yield session


WRITERS = {
    "a task": """
        async def write():
            await asyncio.get_running_loop().run_in_executor(None, go.wait)
            for n in range(100): print("late", n)
            print("end")
        task = asyncio.create_task(write())
    """,
    "a thread": """
        def write():
            go.wait()
            for n in range(100): print("late", n)
            print("end")
        threading.Thread(target=write).start()
    """,
    "a thread of a thread": """
        def write():
            go.wait()
            for n in range(100): print("late", n)
            print("end")
        threading.Thread(target=lambda: threading.Thread(target=write).start()).start()
    """,
}


@pytest.mark.anyio
@pytest.mark.parametrize("writer", WRITERS)
async def test_output_between_cells_belongs_to_the_cell_that_started_its_writer(
    session: AsyncSession, late: Late, writer: str
) -> None:
    starter = await ok(session, "go = threading.Event()\n" + cell(WRITERS[writer]) + "\nprint('started')")
    assert starter.stdout == "started\n"
    trigger = await ok(session, "go.set()")
    await late.wait_for(starter.execution_id, "end\n")
    expected = [f"late {n}" for n in range(100)] + ["end"]
    assert late.texts[starter.execution_id].splitlines() == expected
    assert trigger.stdout == ""
    assert set(late.texts) == {starter.execution_id}


@pytest.mark.anyio
@pytest.mark.parametrize("writer", WRITERS)
async def test_output_during_another_cell_is_not_that_cells(session: AsyncSession, late: Late, writer: str) -> None:
    starter = await ok(session, "go = threading.Event()\n" + cell(WRITERS[writer]))
    code = """
        go.set()
        for n in range(100):
            print("mine", n)
            await asyncio.sleep(0)
    """
    other = await ok(session, code)
    await late.wait_for(starter.execution_id, "end\n")
    assert other.stdout.splitlines() == [f"mine {n}" for n in range(100)]
    assert late.texts[starter.execution_id].splitlines() == [f"late {n}" for n in range(100)] + ["end"]


@pytest.mark.anyio
async def test_two_writers_in_the_background_are_told_apart(session: AsyncSession, late: Late) -> None:
    await ok(session, "go = threading.Event()")
    code = """
        def write(go=go):
            go.wait()
            for n in range(200): print("{name}", n)
            print("end {name}")
        threading.Thread(target=write).start()
    """
    first = await ok(session, cell(code).format(name="a"))
    second = await ok(session, cell(code).format(name="b"))
    await ok(session, "go.set()")
    for result, name in ((first, "a"), (second, "b")):
        await late.wait_for(result.execution_id, f"end {name}\n")
        assert late.texts[result.execution_id].splitlines()[:-1] == [f"{name} {n}" for n in range(200)]


@pytest.mark.anyio
async def test_the_work_of_a_pool_belongs_to_the_cell_that_gave_it(session: AsyncSession) -> None:
    """The threads were started by an earlier cell, and are used again."""
    code = """
        from concurrent.futures import ThreadPoolExecutor
        pool = ThreadPoolExecutor(2)
        for _ in pool.map(print, ["first"]): pass
    """
    assert (await ok(session, code)).stdout == "first\n"
    for n in range(5):
        assert (await ok(session, f"for _ in pool.map(print, [{n}]): pass")).stdout == f"{n}\n"
    assert (await ok(session, "await asyncio.get_running_loop().run_in_executor(pool, print, 'x')")).stdout == "x\n"


@pytest.mark.anyio
async def test_the_output_of_a_running_cells_own_thread_is_in_its_stream(session: AsyncSession) -> None:
    code = """
        def write():
            for n in range(500): sys.stdout.write(f"{n}\\n")  # print writes a number and a newline
        threads = [threading.Thread(target=write) for _ in range(4)]
        for t in threads: t.start()
        for t in threads: t.join()
    """
    result = await ok(session, code)
    assert sorted(map(int, result.stdout.split())) == sorted(list(range(500)) * 4)


@pytest.mark.anyio
async def test_a_running_cell_sees_what_its_task_writes_while_it_runs(session: AsyncSession) -> None:
    """Output is told as it comes, not at the end."""
    running = await begin(session, "print('go')\nawait asyncio.sleep(1000)")
    assert not running.task.done()
    await session.interrupt()
    assert (await running.result()).stdout == "go\n"


@pytest.mark.anyio
async def test_what_a_question_has_code_write_belongs_to_no_cell(session: AsyncSession, late: Late) -> None:
    result = await ok(
        session,
        """
        class Asked:
            def __dir__(self):
                print("asked"); print("asked", file=sys.stderr)
                try: input()
                except EOFError: print("no answer")
                return ["alpha"]
        value = Asked()
        print("first")
        """,
    )
    assert (await session.complete("value.al")).matches == ["alpha"]
    await late.wait_for("", "no answer")
    assert (await ok(session, "print('second')")).stdout == "second\n"
    assert sorted(late.texts[""].splitlines()) == ["asked", "asked", "no answer"]
    assert late.texts.keys() == {""}
    assert result.stdout == "first\n"
