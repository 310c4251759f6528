"""Whatever ends a run, and whatever it has started, nothing of it is left: no process, no file, no descriptor."""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from capsule_protocol.errors import CapabilityFailed, CapabilityTimeout
from tests.acceptance.providers.programs import LEVELS, PYTHON, Shell, marked, shell

pytestmark = pytest.mark.anyio

_marks = itertools.count(os.getpid() * 1000)

ESCAPES = {
    "background": "sleep MARK & ",
    "own session": "setsid sleep MARK & ",
    "double fork": "(setsid sh -c '(sleep MARK &)' &) ",
    "ignores signals": "(trap '' TERM HUP INT; sleep MARK) & ",
    "hangs on to the outputs": "sleep MARK 2>&1 & ",
    "lets go of the outputs": "setsid sleep MARK > /dev/null 2>&1 < /dev/null & ",
    "stopped": "(sleep MARK) & kill -STOP $! ",
    "many": "for i in 1 2 3 4 5 6 7 8 9; do (setsid sleep MARK &); done ",
}


def mark() -> str:
    """A number of seconds that no other process sleeps."""
    return f"{next(_marks)}"


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("escape", ESCAPES)
async def test_nothing_outlives_its_program(level: str, escape: str) -> None:
    word = mark()
    async with shell(sandbox=level) as run:
        ran = await run.run(ESCAPES[escape].replace("MARK", word) + "\necho done", timeout=60)
        assert ran.text == "done"
        assert not marked(word)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("escape", ESCAPES)
async def test_nothing_outlives_its_time(level: str, escape: str) -> None:
    word = mark()
    async with shell(sandbox=level) as run:
        with pytest.raises(CapabilityTimeout):
            await run.run(f"trap '' TERM HUP INT\n{ESCAPES[escape].replace('MARK', word)}\nsleep {word}", timeout=0.3)
        assert not marked(word)


async def begun(run: Shell, script: str) -> asyncio.Task[object]:
    """A run that has said its first word."""
    said = asyncio.Event()

    async def on_chunk(_: bytes) -> None:
        said.set()

    run.call.on_chunk = on_chunk
    task: asyncio.Task[object] = asyncio.create_task(run.run(script))
    waiting = asyncio.create_task(said.wait())
    await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    assert not task.done(), task
    return task


@pytest.mark.parametrize("level", LEVELS)
async def test_all_of_it_gives_way_when_no_memory_is_left(level: str) -> None:
    mine = int(Path("/proc/self/oom_score_adj").read_text())
    async with shell(sandbox=level) as run:
        task = await begun(run, "sleep 1000 & echo begun; sleep 1000; :")
        (keeper,) = psutil.Process(run.provider._launcher.pid).children()
        below = [each.pid for each in keeper.children(recursive=True)]
        told = {pid: int(Path(f"/proc/{pid}/oom_score_adj").read_text()) for pid in (keeper.pid, *below)}
        assert len(below) >= 2
        assert told.pop(keeper.pid) == mine
        assert set(told.values()) == {min(1000, mine + 300)}
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@pytest.mark.parametrize("level", LEVELS)
async def test_nothing_outlives_a_call_that_is_given_up(level: str) -> None:
    word = mark()
    async with shell(sandbox=level) as run:
        task = await begun(run, f"setsid sleep {word} & echo begun; sleep {word}")
        assert marked(word)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not marked(word)


@pytest.mark.parametrize("level", ["none", "namespaces"])
async def test_a_call_can_be_given_up_at_any_moment(level: str) -> None:
    word = mark()

    async def body() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 10_000

    async with shell(sandbox=level) as run:
        await run.run("true")
        for pause in range(40):
            script = f"(setsid sleep {word} &); echo begun; exec sleep {word}"
            task = asyncio.create_task(run.run(script, body()))
            await asyncio.wait({task}, timeout=pause / 1000)
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            assert not marked(word)


async def test_no_file_outlives_its_program() -> None:
    before = set(Path(tempfile.gettempdir()).iterdir())
    async with shell() as run:
        where = (await run.run("pwd; mkdir -p a/b; echo x > a/b/c; chmod 0 a/b a")).text
        assert not Path(where).exists()
        task = await begun(run, "pwd; echo x > file; sleep 1000")
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        assert not list(Path(where).parent.iterdir())
    assert set(Path(tempfile.gettempdir()).iterdir()) == before


@pytest.mark.parametrize("level", LEVELS)
async def test_no_file_outlives_its_provider(level: str) -> None:
    before = set(Path(tempfile.gettempdir()).iterdir())
    async with shell(sandbox=level) as run:
        await run.run("mkdir -p a/b; echo x > a/b/c")
        assert set(Path(tempfile.gettempdir()).iterdir()) != before
    assert set(Path(tempfile.gettempdir()).iterdir()) == before


async def gone(processes: list[psutil.Process]) -> None:
    """Wait for their end; whose they are, nobody else waits for them.

    Before Linux 6.15 one that is being buried may be answered with EINVAL, which psutil does not expect (its #2715).
    """
    while True:
        try:
            left = await asyncio.to_thread(psutil.wait_procs, processes, 30)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
        else:
            break
    assert not left[1]


def living(word: str) -> list[psutil.Process]:
    """Processes that have the word on their command line."""
    found = []
    for pid in marked(word):
        with suppress(psutil.NoSuchProcess):
            found.append(psutil.Process(pid))
    return found


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("victim", ["launcher", "keeper", "program"])
async def test_nothing_is_left_when_one_of_them_is_killed(level: str, victim: str) -> None:
    word = mark()
    async with shell(sandbox=level) as run:
        task = await begun(run, f"(setsid sleep {word} &); echo begun; sleep {word}")
        launcher = psutil.Process(run.provider._launcher.pid)
        tree = launcher.children(recursive=True)
        (keeper,) = launcher.children()
        # What the subshell has left may not have become `setsid` yet; it leads no session before.
        shells = [process for process in keeper.children() if process.cmdline()[0] == "/bin/sh"]
        (program,) = [process for process in shells if os.getsid(process.pid) == process.pid]
        {"launcher": launcher, "keeper": keeper, "program": program}[victim].kill()
        if victim == "program":
            ran = await task
            assert ran.value.signal == "SIGKILL"  # type: ignore[attr-defined]
        elif victim == "launcher":  # the run does not need it
            os.waitid(os.P_PID, launcher.pid, os.WEXITED | os.WNOWAIT)
            assert (await run.run("echo beside")).text == "beside"
            assert not task.done()
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        else:
            with pytest.raises(CapabilityFailed) as error:
                await task
            assert error.value.code == "program_failed"
        await gone(tree)
        await gone(living(word))  # what began after that look, the launcher kills when it comes to it
        assert (await run.run("echo next")).text == "next"


@pytest.mark.parametrize("level", LEVELS)
async def test_a_program_ends_with_its_keeper_when_nobody_else_is_there(level: str) -> None:
    word = mark()
    async with shell(sandbox=level) as run:
        task = await begun(run, f"echo begun; exec sleep {word}")
        launcher = psutil.Process(run.provider._launcher.pid)
        (keeper,) = launcher.children()
        tree = [keeper, *keeper.children()]
        launcher.kill()
        os.waitid(os.P_PID, launcher.pid, os.WEXITED | os.WNOWAIT)
        keeper.kill()
        with pytest.raises(CapabilityFailed):
            await task
        await gone(tree)


@pytest.mark.parametrize("level", LEVELS)
async def test_a_provider_that_is_stopped_ends_what_runs(level: str) -> None:
    word = mark()
    async with shell(sandbox=level) as run:
        task = await begun(run, f"(setsid sleep {word} &); echo begun; sleep {word}")
        await run.provider.stop()
        with suppress(CapabilityFailed):
            ran = await task
            assert ran.value.signal == "SIGKILL"  # type: ignore[attr-defined]
        assert not marked(word)


GIVES_AWAY = """
import array, socket, sys
there = socket.socket(socket.AF_UNIX)
there.connect(sys.argv[1])
socket.send_fds(there, [b"x"], [1, 2])
print("given away")
"""


async def test_a_run_ends_also_if_somebody_else_holds_its_outputs(tmp_path: Path) -> None:
    """Without a sandbox a program can hand its descriptors to a process that is none of its own."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        server.listen()
        async with shell() as run:
            ran = await run.run(["python", "-c", GIVES_AWAY, str(tmp_path / "socket")], timeout=60)
        connection, _ = server.accept()
        with connection:
            _, held, _, _ = socket.recv_fds(connection, 1, 2)
            for descriptor in held:
                os.close(descriptor)
    assert ran.text == "given away"
    assert len(held) == 2


NODE = """
import asyncio, sys
from tests.acceptance.providers.programs import SHELL, shell

async def main():
    async with shell(SHELL, sandbox=sys.argv[1]) as run:
        async def on_chunk(chunk):
            print(run.provider._launcher.pid, flush=True)
        run.call.on_chunk = on_chunk
        await run.run(sys.argv[2])

asyncio.run(main())
"""


@pytest.mark.parametrize("level", LEVELS)
async def test_nothing_outlives_a_node_that_is_killed(level: str) -> None:
    word = mark()
    before = set(Path(tempfile.gettempdir()).iterdir())
    script = f"(trap '' TERM; setsid sleep {word} &); echo begun > file; echo begun; trap '' TERM; sleep {word}"
    command = [sys.executable, "-c", NODE, level, script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[3]) as node:
        assert node.stdout is not None
        launcher = psutil.Process(int(node.stdout.readline()))
        tree = [launcher, *launcher.children(recursive=True)]
        assert len(tree) >= 4
        node.kill()
    await gone(tree)
    assert not marked(word)
    assert set(Path(tempfile.gettempdir()).iterdir()) == before


async def test_a_killed_node_takes_its_programs_along_also_while_one_floods() -> None:
    script = "yes"
    command = [sys.executable, "-c", NODE, "none", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[3]) as node:
        assert node.stdout is not None
        launcher = psutil.Process(int(node.stdout.readline()))
        tree = [launcher, *launcher.children(recursive=True)]
        node.send_signal(signal.SIGKILL)
    await gone(tree)


async def test_many_at_once_do_not_mix() -> None:
    async with shell() as run:
        ran = await asyncio.gather(*(run.run(f"cat; echo {number}", b"%d " % number) for number in range(20)))
    assert [each.text for each in ran] == [f"{number} {number}" for number in range(20)]


def test_the_interpreter_of_the_tests_is_there() -> None:
    assert Path(PYTHON).exists()
