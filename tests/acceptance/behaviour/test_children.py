"""Child processes: an interrupt or a time-out reaches those of its own cell, and no others."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import pytest

from tests.acceptance.behaviour.support import HANG, begin, cell, ok

if TYPE_CHECKING:
    from pathlib import Path

    from capsule import AsyncSession

START = """
    import subprocess
    child = subprocess.Popen(["sleep", "1000"])
"""


@pytest.mark.anyio
async def test_an_interrupt_leaves_the_children_of_earlier_cells_alone(session: AsyncSession) -> None:
    await ok(session, START)
    # Processes tell their start in hundredths of a second; the next cell must begin in a later one.
    await ok(session, "import time\nt = time.monotonic()\nwhile time.monotonic() < t + 0.02: pass")
    running = await begin(session, "print('go', flush=True)\nwhile True: pass")
    await session.interrupt()
    assert (await running.result()).verdict == "interrupted"
    assert (await ok(session, "child.poll()")).text == ""
    await ok(session, "child.kill(); child.wait()")


@pytest.mark.anyio
async def test_an_interrupt_of_a_cell_that_has_ended_reaches_no_child_of_the_next(session: AsyncSession) -> None:
    code = "import subprocess\nsubprocess.run(['sleep', '0.02']).returncode"
    for _ in range(30):
        first = session.submit("1")
        second = session.submit(code)
        await session.cancel(first.execution_id)
        assert (await first.result()).verdict in {"ok", "interrupted"}
        assert (await second.result()).text == "0"


@pytest.mark.anyio
async def test_children_that_ignore_the_interrupt_die_with_a_cell_that_timed_out(session: AsyncSession) -> None:
    code = """
        import os, subprocess
        child = subprocess.Popen(["sh", "-c", "trap '' INT; echo up; exec sleep 1000"], stdout=subprocess.PIPE)
        child.stdout.readline()
        while True: pass
    """
    result = await session.run(cell(code), timeout=1.0)
    assert result.verdict == "timeout"
    assert (await ok(session, "child.wait()")).text == "-9"


@pytest.mark.anyio
async def test_children_of_an_interrupted_cell_that_ignore_it_go_on(session: AsyncSession) -> None:
    code = """
        import subprocess
        child = subprocess.Popen(["sh", "-c", "trap '' INT; echo up; exec sleep 1000"], stdout=subprocess.PIPE)
        child.stdout.readline()
        print("go", flush=True)
        while True: pass
    """
    running = await begin(session, cell(code))
    await session.interrupt()
    assert (await running.result()).verdict == "interrupted"
    assert (await ok(session, "child.poll()")).text == ""
    await ok(session, "child.kill(); child.wait()")


FORKING_TASK = """
    import asyncio, os
    parent = os.getpid()
    async def fork():
        loop = asyncio.get_running_loop()
        child = os.fork()
        if child == 0:
            return loop.call_soon(loop.call_soon, os._exit, 9)  # what the child does if it goes on
        with open({pipe!r}, "w") as pipe:
            pipe.write(str(os.waitpid(child, 0)[1]))
    task = asyncio.create_task(fork())  # begins when the cell has ended
"""


@pytest.mark.anyio
@pytest.mark.parametrize("queued", [0, 10])
async def test_a_task_that_forks_between_cells_ends_its_child_and_costs_no_message(
    session: AsyncSession, queued: int, tmp_path: Path
) -> None:
    """The child must neither take messages nor touch the selector, both of which it shares with the worker."""
    os.mkfifo(tmp_path / "pipe")
    session.submit(cell(FORKING_TASK.format(pipe=str(tmp_path / "pipe"))))
    running = [session.submit(f"print({number})\nos.getpid() == parent, {number}") for number in range(queued)]
    async with asyncio.timeout(HANG):
        assert await asyncio.to_thread((tmp_path / "pipe").read_text) == "0"
        for number, execution in enumerate(running):
            result = await execution.result()
            assert (result.stdout, result.text) == (f"{number}\n", f"(True, {number})")
    for _ in range(5):
        assert (await ok(session, "await task\nos.getpid() == parent")).text == "True"
