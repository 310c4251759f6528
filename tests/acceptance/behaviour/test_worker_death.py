"""A worker that dies gives its verdict, with the output until then and the signal; the session can be restarted."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import TYPE_CHECKING

import pytest

from capsule_protocol.errors import SessionError
from tests.acceptance.behaviour.support import begin, cell, gone, ok, run, still_well

if TYPE_CHECKING:
    from capsule import AsyncClient, AsyncSession

PROMISE = 1.0
"""Seconds from the cause to the verdict; a busy machine gets five times as many."""

DEATHS = {
    "SIGKILL from inside": ("os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL"),
    "SIGTERM from inside": ("os.kill(os.getpid(), signal.SIGTERM)", "SIGTERM"),
    "os._exit": ("os._exit(7)", "code 7"),
    "os._exit(0)": ("os._exit(0)", "code 0"),
    "os.abort": ("os.abort()", "SIGABRT"),
    "a segfault": ("ctypes.string_at(0)", "SIGSEGV"),
    "a segfault in a thread": (
        "threading.Thread(target=ctypes.string_at, args=[0]).start(); time.sleep(60)",
        "SIGSEGV",
    ),
    "SIGBUS": ("os.kill(os.getpid(), signal.SIGBUS)", "SIGBUS"),
    "os.execv": ("os.execv('/bin/true', ['true'])", "code 0"),
}


@pytest.mark.anyio
@pytest.mark.parametrize("death", DEATHS)
async def test_a_death_gives_the_verdict_with_all_output_and_the_cause(session: AsyncSession, death: str) -> None:
    how, cause = DEATHS[death]
    code = f"""
        import ctypes, os, signal, threading, time
        kept = 1
        print("printed")
        os.write(2, b"written")
        print("no newline", end="")
        os.write(1, b"; go")
        {how}
    """
    running = await begin(session, code, until="; go")
    result = await running.result()
    took = time.monotonic() - running.seen_at
    assert result.verdict == "crashed"
    assert (result.stdout, result.stderr) == ("printed\nno newline; go", "written")
    assert result.error is not None
    assert result.error.code == "execution_crashed"
    assert cause in result.error.message
    assert took < 5 * PROMISE, running.events
    assert (await session.info()).state == "dead"


@pytest.mark.anyio
async def test_a_kill_from_outside_gives_the_verdict(session: AsyncSession) -> None:
    running = await begin(session, "print('go')\nimport time\ntime.sleep(1000)")
    os.kill((await session.info()).pid, signal.SIGKILL)
    cause = time.monotonic()
    result = await running.result()
    assert result.verdict == "crashed"
    assert result.error is not None
    assert "SIGKILL" in result.error.message
    assert result.stdout == "go\n"
    assert time.monotonic() - cause < 5 * PROMISE


@pytest.mark.anyio
async def test_output_that_still_is_in_the_pipe_at_death_is_not_lost(session: AsyncSession) -> None:
    result = await run(session, "import os\nfor n in range(20000): print(n)\nos.kill(os.getpid(), 9)")
    assert result.verdict != "ok"
    assert result.stdout.split() == [str(n) for n in range(20000)]


@pytest.mark.anyio
async def test_what_was_queued_behind_a_death_gets_its_verdicts_too(session: AsyncSession) -> None:
    first = await begin(session, "print('go')\nimport time\ntime.sleep(1000)")
    behind = [await begin(session, f"print('never {n}')", until=None) for n in range(3)]
    os.kill((await session.info()).pid, signal.SIGKILL)
    assert (await first.result()).verdict == "crashed"
    for running in behind:
        result = await running.result()
        assert result.verdict != "ok"
        assert result.stdout == ""


@pytest.mark.anyio
async def test_a_worker_that_dies_idle_is_noticed(session: AsyncSession) -> None:
    pid = (await session.info()).pid
    os.kill(pid, signal.SIGKILL)
    await gone(pid)
    with contextlib.suppress(SessionError):  # told at once, or as the verdict, whichever came first
        assert (await run(session, "1 + 1")).verdict != "ok"
    assert (await session.info()).state == "dead"


@pytest.mark.anyio
async def test_a_dead_session_says_so_and_restart_works(session: AsyncSession) -> None:
    before = await session.info()
    await run(session, "kept = 1\nimport os\nos._exit(3)")
    assert (await session.info()).state == "dead"
    with pytest.raises(SessionError) as caught:
        await session.run("1 + 1")
    assert caught.value.code == "session_dead"
    assert "restart" in str(caught.value)
    await session.restart()
    after = await session.info()
    assert (after.state, after.id, after.epoch) == ("ready", before.id, before.epoch + 1)
    assert after.pid != before.pid
    await still_well(session)
    assert (await ok(session, "'kept' in globals()")).text == "False"


@pytest.mark.anyio
async def test_a_neighbour_does_not_notice_a_death(client: AsyncClient, session: AsyncSession) -> None:
    await ok(session, "kept = 1")
    async with client.session() as victim:
        await run(victim, "import os\nos.kill(os.getpid(), 9)")
    assert (await ok(session, "kept")).text == "1"


HOGS = {
    "objects": "hoard = []\nfor _ in range(250): hoard.append(bytearray(b'x') * 2**24)\ntime.sleep(60)",
    "one object": "hoard = bytearray(b'x') * 2**31\ntime.sleep(60)",
    "memory of C": (
        "libc.malloc.restype = ctypes.c_void_p\n"
        "for _ in range(250): ctypes.memset(libc.malloc(2**24), 1, 2**24)\ntime.sleep(60)"
    ),
    "a child": "subprocess.run([sys.executable, '-c', 'import time; h = bytearray(b\"x\") * 2**31; time.sleep(60)'])",
}
"""Four gigabytes at most, should nobody stop them."""


@pytest.mark.anyio
@pytest.mark.parametrize("hog", HOGS)
async def test_a_hog_of_memory_gets_oom(client: AsyncClient, hog: str) -> None:
    """Told apart from a crash, with the output until then; the session restarts."""
    async with client.session(memory_bytes=300 * 2**20) as session:
        await ok(session, "import ctypes, subprocess, sys, time\nlibc = ctypes.CDLL(None)")
        result = await run(session, f"print('begun')\n{HOGS[hog]}")
        assert result.verdict == "oom"
        assert result.stdout == "begun\n"
        assert result.error is not None
        assert result.error.code == "execution_oom"
        assert (await session.info()).state == "dead"
        await session.restart()
        await still_well(session)


@pytest.mark.anyio
async def test_the_children_of_a_dead_worker_die_with_it(session: AsyncSession) -> None:
    code = """
        import os, subprocess
        plain = subprocess.Popen(["sleep", "1000"])
        away = subprocess.Popen(["sleep", "1000"], start_new_session=True)
        print(plain.pid, away.pid, flush=True)
        os.kill(os.getpid(), 9)
    """
    result = await run(session, cell(code))
    await gone(*map(int, result.stdout.split()))
