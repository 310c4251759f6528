"""What one session takes too much of is stopped by its limits, and costs no other session anything."""

from __future__ import annotations

import asyncio
import itertools
import os
import resource
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from capsule import AsyncClient
from capsule.config import SessionOptions
from capsule_protocol.errors import ArgumentError, SessionError
from tests.acceptance.behaviour.support import HANG, descendants, gone_since, ok, run, still_well

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from capsule import AsyncSession, Result

pytestmark = pytest.mark.anyio

MIB = 2**20
LIMITS: dict[str, Any] = {"max_processes": 12, "memory_bytes": 256 * MIB, "max_open_files": 200}

PRELUDE = """
import os
bound = len(os.listdir("/proc")) + 1500
def grow(step):
    # No more than so many, should nobody stop them: this is somebody's machine, and others may use it.
    while len(os.listdir("/proc")) < bound:
        step()
"""
HOGS = {
    "a fork bomb": ("grow(os.fork)", "killed", "process_limit_exceeded"),
    "a fork bomb of new sessions": ("grow(lambda: os.fork() or os.setsid())", "killed", "process_limit_exceeded"),
    "a fork bomb whose parents end": (
        "import signal\nif os.fork(): signal.pause()\ngrow(lambda: os.fork() and os.fork() and os._exit(0))",
        "killed",
        "process_limit_exceeded",
    ),
    "too many that do nothing": (
        "import signal\nall(os.fork() for _ in range(30)); signal.pause()",
        "killed",
        "process_limit_exceeded",
    ),
    "a hog of memory": (
        "import signal\nhoard = []\nfor _ in range(64): hoard.append(bytearray(b'x') * 2**24)\nsignal.pause()",
        "oom",
        "execution_oom",
    ),
}

OPEN_ALL = """
opened = []
try:
    while True: opened.append(open("/dev/null"))
except OSError as error:
    print(type(error).__name__, error.errno)
len(opened)
"""


@asynccontextmanager
async def neighbour(client: AsyncClient) -> AsyncIterator[AsyncSession]:
    """A session that runs code meanwhile, and at the end has lost nothing."""
    over = asyncio.Event()

    async def work(session: AsyncSession) -> None:
        for count in itertools.count():
            result = await ok(session, "print(count)\ncount += 1\ncount")
            assert (result.stdout, result.text) == (f"{count}\n", str(count + 1))
            if over.is_set():
                return

    async with client.session() as session:
        await ok(session, "count = 0")
        working = asyncio.ensure_future(work(session))
        try:
            yield session
        finally:
            over.set()
            await working


@pytest.mark.parametrize("hog", HOGS)
async def test_a_hog_is_stopped_and_a_neighbour_loses_nothing(cold: AsyncClient, hog: str) -> None:
    code, verdict, told = HOGS[hog]
    async with neighbour(cold):
        before = descendants()
        async with cold.session(**LIMITS) as session:
            await ok(session, PRELUDE)
            result = await run(session, f"print('begun', flush=True)\n{code}")
            assert_stopped(result, verdict, told)
            assert (await session.info()).state == "dead"
            await session.restart()
            await still_well(session)
        await gone_since(before)


def assert_stopped(result: Result, verdict: str, code: str) -> None:
    assert result.error is not None, result
    assert (result.verdict, result.error.code) == (verdict, code), result.error
    assert result.stdout.startswith("begun\n")
    assert result.error.hint
    assert result.error.details["signal_name"] == "SIGKILL"


async def test_a_hog_of_descriptors_meets_its_limit_and_the_session_goes_on(client: AsyncClient) -> None:
    async with neighbour(client), client.session(**LIMITS) as session:
        await ok(session, "import os, subprocess\nfrom IPython.display import HTML, display\n'loaded'")
        full = await ok(session, OPEN_ALL)
        assert full.stdout == "OSError 24\n"
        assert 100 < int(full.text) < 200
        # With all of them open:
        await still_well(session)
        shown = await ok(session, "display(HTML('<b>bold</b>')); {'a': 1}")
        assert (shown.displays[0].data["text/html"], shown.text) == ("<b>bold</b>", "{'a': 1}")
        failed = await run(session, "1 / 0")
        assert failed.error is not None
        assert (failed.verdict, failed.error.name) == ("error", "ZeroDivisionError")
        assert (await ok(session, "import asyncio\nawait asyncio.sleep(0, 'awaited')")).text == "'awaited'"
        # And with room again:
        await ok(session, "[file.close() for file in opened]")
        assert (await ok(session, "subprocess.run(['echo', 'child']).returncode")).stdout == "child\n"
        assert (await ok(session, OPEN_ALL)).text == full.text


async def test_the_lowest_limit_leaves_a_worker_its_own_descriptors(client: AsyncClient) -> None:
    async with client.session(max_open_files=128) as session:
        assert int((await ok(session, OPEN_ALL)).text) >= 64
        await ok(session, "[file.close() for file in opened]")
        await still_well(session)
        assert (await ok(session, "import subprocess\nsubprocess.run(['true']).returncode")).text == "0"
        assert (await ok(session, "import asyncio\nasyncio.run(asyncio.sleep(0, 'own loop'))")).text == "'own loop'"


async def test_children_have_the_limit_on_descriptors_too(client: AsyncClient) -> None:
    async with client.session(max_open_files=150) as session:
        assert (await ok(session, "import subprocess\nsubprocess.getoutput('ulimit -n; ulimit -Hn')")).text == repr(
            "150\n150"
        )


async def test_as_many_processes_as_allowed_are_left_alone(client: AsyncClient) -> None:
    """Through thirty looks of the box, which the ends of short-lived processes stand for here."""
    async with client.session(max_processes=5) as session:
        code = """
            import subprocess
            kept = [subprocess.Popen(["cat"], stdin=subprocess.PIPE) for _ in range(3)]
            codes = {subprocess.run(["sleep", "0.02"]).returncode for _ in range(30)}
            [child.stdin.close() for child in kept]
            codes, {child.wait() for child in kept}
        """
        assert (await ok(session, code)).text == "({0}, {0})"


async def test_what_a_cell_left_behind_is_stopped_between_cells(client: AsyncClient, tmp_path: Path) -> None:
    """Nothing runs then, so nothing has a verdict of it; the session is dead, and says so."""
    os.mkfifo(tmp_path / "go")
    async with client.session(max_processes=3, cwd=tmp_path) as session:
        code = """
            import subprocess, threading
            def later():
                open("go").read()
                while True: subprocess.Popen(["sleep", "1000"])
            threading.Thread(target=later, daemon=True).start()
        """
        await ok(session, code)
        worker = psutil.Process((await session.info()).pid)
        await asyncio.to_thread((tmp_path / "go").write_text, "go")
        await asyncio.to_thread(worker.wait, HANG)
        with suppress(SessionError):  # told at once, or as the verdict, whichever comes first
            assert (await run(session, "1 + 1")).verdict != "ok"
        assert (await session.info()).state == "dead"


async def test_limits_hold_for_a_warm_worker_and_after_a_restart() -> None:
    async with AsyncClient(environments={"default": {"min_idle": 2}}) as client:
        async with client.session():
            pass
        async with client.session(**LIMITS) as session:
            for _ in range(3):
                await ok(session, PRELUDE)
                assert (await ok(session, OPEN_ALL)).stdout == "OSError 24\n"
                await ok(session, "[file.close() for file in opened]")
                result = await run(session, "print('begun', flush=True)\ngrow(os.fork)")
                assert_stopped(result, "killed", "process_limit_exceeded")
                await session.restart()
                await ok(session, PRELUDE)
                result = await run(session, f"print('begun', flush=True)\n{HOGS['a hog of memory'][0]}")
                assert_stopped(result, "oom", "execution_oom")
                await session.restart()
        assert (await client.info()).pools["default"].stats.deaths == {"out of memory": 3, "too many processes": 3}


async def test_a_session_without_limits_has_none(client: AsyncClient) -> None:
    async with client.session() as session:
        code = "import resource\nresource.getrlimit(resource.RLIMIT_NOFILE)"
        assert (await ok(session, code)).text == repr(resource.getrlimit(resource.RLIMIT_NOFILE))
        forks = "import os, signal\nchildren = [os.fork() or signal.pause() for _ in range(30)]\n"
        await ok(session, forks + "[os.kill(child, 9) or os.waitpid(child, 0) for child in children]")


BAD: dict[str, tuple[dict[str, Any], str, str]] = {
    "no process at all": ({"max_processes": 0}, "max_processes", "at least 1"),
    "half a process": ({"max_processes": 1.5}, "max_processes", "int"),
    "text as a number of processes": ({"max_processes": "many"}, "max_processes", "int"),
    "too many processes": ({"max_processes": 1 << 70}, "max_processes", "at most"),
    "fewer files than a worker needs": ({"max_open_files": 127}, "max_open_files", "at least 128"),
    "a negative number of files": ({"max_open_files": -1}, "max_open_files", "at least 128"),
    "too many files": ({"max_open_files": 1 << 70}, "max_open_files", "at most"),
    "more files than the system allows": ({"max_open_files": 1_000_000_000}, "max_open_files", "at most"),
}


@pytest.mark.parametrize("name", BAD)
async def test_a_limit_that_cannot_be_kept_is_refused_by_name(client: AsyncClient, name: str) -> None:
    options, argument, allowed = BAD[name]
    with pytest.raises(ArgumentError) as caught:
        await client.session(**options)
    assert caught.value.argument == argument
    assert argument in str(caught.value)
    assert allowed in str(caught.value)


def test_no_limit_is_the_default() -> None:
    assert (SessionOptions().max_processes, SessionOptions().max_open_files) == (None, None)


async def test_a_worker_that_crashes_leaves_no_core_file(tmp_path: Path) -> None:
    """Whatever the limit of the program that the node lives in: a core dump takes its time, and a place on the disk."""
    before = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (before[1], before[1]))
    try:
        async with AsyncClient() as client, client.session(cwd=tmp_path) as session:
            code = "import resource\nresource.getrlimit(resource.RLIMIT_CORE)"
            assert (await ok(session, code)).text == repr((0, before[1]))
            assert (await run(session, "import ctypes\nctypes.string_at(0)")).verdict == "crashed"
        assert list(tmp_path.iterdir()) == []
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, before)


async def test_out_of_memory_is_told_before_the_code_has_had_another_second(cold: AsyncClient) -> None:
    """Of processor time: on a busy machine the box and the code both wait for theirs."""
    code = f"""
        import time
        hoard = bytearray(b"x") * {512 * MIB}
        began = time.process_time()
        while time.process_time() < began + 1: pass
        print("another second")
    """
    async with cold.session(memory_bytes=256 * MIB) as session:
        result = await run(session, code)
        assert (result.verdict, result.stdout) == ("oom", "")
