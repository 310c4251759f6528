"""A timeout first interrupts, then kills; children of the cell die with it."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from capsule.events import Event, Output, Status
from tests.acceptance.behaviour.support import HANG, begin, gone, ok, run, still_well

if TYPE_CHECKING:
    from capsule import AsyncClient, AsyncSession

ENDLESS = {
    "a loop": "while True: pass",
    "a sleep": "import time; time.sleep(1000)",
    "an await": "import asyncio\nawait asyncio.sleep(1000)",
    "a lock": "import threading\nlock = threading.Lock(); lock.acquire(); lock.acquire()",
}


@pytest.mark.anyio
@pytest.mark.parametrize("name", ENDLESS)
async def test_a_timeout_interrupts_and_keeps_the_namespace(session: AsyncSession, name: str) -> None:
    pid = (await session.info()).pid
    begun = time.monotonic()
    result = await run(session, f"kept = 1\nprint('go')\n{ENDLESS[name]}", timeout=1.0)
    assert result.verdict == "timeout"
    assert result.stdout == "go\n"
    assert result.error is not None
    assert result.error.code == "execution_timeout"
    assert "1 s" in result.error.message
    assert time.monotonic() - begun < 20
    assert (await ok(session, "kept")).text == "1"
    assert (await session.info()).pid == pid


@pytest.mark.anyio
async def test_code_can_clean_up_before_it_ends(session: AsyncSession) -> None:
    await ok(session, "import time")
    result = await run(session, "try: time.sleep(1000)\nfinally: print('cleaned')", timeout=1.0)
    assert (result.verdict, result.stdout) == ("timeout", "cleaned\n")


@pytest.mark.anyio
@pytest.mark.parametrize("code", ["time.sleep(1000)", "sum(range(10**12))"])
async def test_what_does_not_heed_the_timeout_is_killed(client: AsyncClient, code: str) -> None:
    """Until it is dead, the session never claims to be ready."""
    async with client.session(interrupt_grace=0.3) as session:
        pid = (await session.info()).pid
        states: list[str] = []
        await ok(session, "import time")
        code = f"while True:\n    try: print('go', flush=True); {code}\n    except BaseException: pass"
        running = await begin(session, code, timeout=1.0)
        running.task.add_done_callback(lambda _: states.append(session.state))
        assert (await session.info()).state == "busy"
        result = await running.result()
        assert result.verdict in {"timeout", "killed"}
        assert result.stdout.startswith("go\n")
        assert result.error is not None
        assert "1 s" in result.error.message
        steps = [event.state for event in running.events if isinstance(event, Status)]
        assert steps[0] == "interrupting"
        assert steps[-1] == "killing"
        assert states == ["dead"]
        await gone(pid)
        await session.restart()
        await still_well(session)


@pytest.mark.anyio
async def test_it_is_a_timeout_too_when_a_task_of_an_earlier_cell_held_the_worker_up(client: AsyncClient) -> None:
    held = asyncio.Event()

    def watch(event: Event) -> None:
        if isinstance(event, Output) and "holding" in event.text:
            held.set()

    async with client.session(interrupt_grace=0.2, on_background=watch) as session:
        code = """
            import asyncio, time
            async def hold():
                await go.wait()
                print("holding", flush=True)
                while True:
                    try: time.sleep(1000)
                    except BaseException: pass
            go = asyncio.Event()
            task = asyncio.ensure_future(hold())
            asyncio.get_running_loop().call_later(0.1, go.set)
        """
        await ok(session, code)
        async with asyncio.timeout(HANG):
            await held.wait()
        result = await run(session, "'never'", timeout=0.3)
        assert (result.verdict, result.error and result.error.code) == ("timeout", "execution_timeout")


@pytest.mark.anyio
async def test_the_children_of_a_cell_die_with_it(client: AsyncClient) -> None:
    """Those that heed an interrupt at the first step, the stubborn and the runaways at the kill."""
    async with client.session(interrupt_grace=0.3) as session:
        code = """
            import subprocess
            stubborn = "trap '' INT TERM HUP; echo $$; while :; do sleep 1000; done"
            pids = []
            for new in (False, True):
                child = subprocess.Popen(["sh", "-c", stubborn], stdout=subprocess.PIPE, start_new_session=new)
                pids.append(int(child.stdout.readline()))
            runaway = subprocess.run(["sh", "-c", "sleep 1000 >/dev/null 2>&1 & echo $!"], stdout=subprocess.PIPE)
            while True:
                try:
                    print(*pids, int(runaway.stdout), flush=True)
                    child.wait()
                except BaseException: pass
        """
        result = await run(session, code, timeout=5.0)  # before it, a busy machine has to start three programs
        assert result.verdict in {"timeout", "killed"}
        pids = [int(pid) for pid in result.stdout.splitlines()[0].split()]
        assert len(pids) == 3
        await gone(*pids)


@pytest.mark.anyio
async def test_a_child_in_the_foreground_ends_with_the_interrupt(session: AsyncSession) -> None:
    code = """
        import subprocess
        child = subprocess.Popen(["sleep", "1000"])
        print(child.pid, flush=True)
        child.wait()
    """
    result = await run(session, code, timeout=1.5)
    assert result.verdict == "timeout"
    await ok(session, "child.wait()")
    await gone(int(result.stdout))


@pytest.mark.anyio
async def test_a_timeout_that_is_not_reached_changes_nothing(session: AsyncSession) -> None:
    result = await ok(session, "print('a')\n1", timeout=60)
    assert (result.stdout, result.text) == ("a\n", "1")
    await still_well(session)


@pytest.mark.anyio
async def test_a_timeout_counts_from_the_start_of_its_own_cell(session: AsyncSession) -> None:
    """Waiting behind another cell is not running."""
    running = await begin(session, "print('go', flush=True)\nwhile True: pass")
    behind = await begin(session, "'behind'", until=None, timeout=5)
    await session.interrupt()
    assert (await running.result()).verdict == "interrupted"
    assert (await behind.result()).verdict == "ok"
