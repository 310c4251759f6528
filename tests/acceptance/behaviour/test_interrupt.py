"""Interrupt ends what the interpreter can leave, and keeps the namespace; what it cannot leave is killed, and told."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from capsule.events import Finished, InputRequest, Output, Status
from capsule.node.box import Box
from tests.acceptance.behaviour.support import HANG, begin, gone, in_c_until, ok, run, still_well

if TYPE_CHECKING:
    from pathlib import Path

    from capsule import AsyncClient, AsyncSession

CAN_BE_LEFT = {
    "while True: pass": "while True: pass",
    "time.sleep": "import time; time.sleep(100)",
    "await asyncio.sleep": "import asyncio\nawait asyncio.sleep(100)",
    "asyncio.run": "import asyncio\nasyncio.run(asyncio.sleep(100))",
    "a loop in a coroutine": "import asyncio\nawait asyncio.sleep(0)\nwhile True: pass",
    "a busy awaiting loop": "import asyncio\nwhile True: await asyncio.sleep(0)",
    "await gather": "import asyncio\nawait asyncio.gather(*(asyncio.sleep(100) for _ in range(10)))",
    "await a future": "import asyncio\nawait asyncio.get_running_loop().create_future()",
    "asyncio.to_thread": (
        "import asyncio, threading\nrelease = threading.Event()\nawait asyncio.to_thread(release.wait, 20)"
    ),
    "lock.acquire": "import threading\nlock = threading.Lock(); lock.acquire(); lock.acquire()",
    "queue.get": "import queue\nqueue.Queue().get()",
    "event.wait": "import threading\nthreading.Event().wait()",
    "select": "import select\nselect.select([], [], [])",
    "a socket": "import socket\na, b = socket.socketpair()\na.recv(1)",
    "a pipe": "import os\nr, w = os.pipe()\nos.read(r, 1)",
    "a re backtracking": "import re\nre.match(r'(a+)+$', 'a' * 40 + 'b')",
    "small matmuls": "import numpy as np\na = np.ones((20, 20))\nwhile True: a @ a",
    "subprocess.run": "import subprocess\nsubprocess.run(['sleep', '100'])",
    "os.system": "import os\nwhile True: os.system('echo go; exec sleep 100')",
    "a shell line": "while True:\n    !echo go; exec sleep 100",
    "a printing loop": "while True: print('x')",
    "a comprehension": "[0 for _ in iter(int, 1)]",
    "a generator": "import itertools\nfor _ in itertools.count(): pass",
    "Thread.join": (
        "import threading\nrelease = threading.Event()\n"
        "t = threading.Thread(target=release.wait, args=[20])\nt.start(); t.join()"
    ),
}


@pytest.mark.anyio
@pytest.mark.parametrize("name", CAN_BE_LEFT)
async def test_an_interrupt_ends_it_and_keeps_the_namespace(session: AsyncSession, name: str) -> None:
    before = await session.info()
    code = CAN_BE_LEFT[name]
    word = "" if "echo go" in code else "print('go', flush=True)\n"  # in C's `system` only the child can be reached
    running = await begin(session, f"kept = ['all of it']\n{word}{code}")
    assert await session.interrupt()
    result = await running.result()
    assert result.verdict == "interrupted"
    assert result.stdout.startswith("go\n")
    assert result.error is not None
    assert result.error.code == "execution_interrupted"
    assert [event.state for event in running.events if isinstance(event, Status)] == ["interrupting"]
    assert (await ok(session, "print('next')\nkept")).text == "['all of it']"
    after = await session.info()
    assert (after.pid, after.epoch, after.state) == (before.pid, before.epoch, "ready")


@pytest.mark.anyio
@pytest.mark.parametrize(
    "ask", ["input()", "import getpass; getpass.getpass()", "input(); input()", "breakpoint(); n = 1"]
)
async def test_an_interrupt_ends_a_question(session: AsyncSession, ask: str) -> None:
    asked = asyncio.Event()

    async def never(request: InputRequest) -> str:
        asked.set()
        return str(await asyncio.get_running_loop().create_future())

    task = asyncio.ensure_future(session.run(f"kept = 1\n{ask}", on_input=never))
    async with asyncio.timeout(HANG):
        await asked.wait()
        await session.interrupt()
        result = await task
    assert result.verdict == "interrupted"
    assert (await ok(session, "kept")).text == "1"


@pytest.mark.anyio
async def test_the_same_session_is_interrupted_again_and_again(session: AsyncSession) -> None:
    await ok(session, "import asyncio, time\nn = 0")
    for name in ["while True: pass", "time.sleep(100)", "await asyncio.sleep(100)"] * 5:
        running = await begin(session, f"n += 1\nprint('go', flush=True)\n{name}")
        await session.interrupt()
        assert (await running.result()).verdict == "interrupted"
    assert (await ok(session, "n")).text == "15"


@pytest.mark.anyio
async def test_code_that_handles_the_interrupt_goes_on(session: AsyncSession) -> None:
    """An interrupt is a KeyboardInterrupt, where Python itself would raise one."""
    code = """
        import time
        try:
            print("go", flush=True)
            time.sleep(100)
        except KeyboardInterrupt:
            print("cleaned")
        7
    """
    running = await begin(session, code)
    await session.interrupt()
    result = await running.result()
    assert result.stdout == "go\ncleaned\n"
    assert result.verdict in {"ok", "interrupted"}
    await still_well(session)


@pytest.mark.anyio
async def test_finally_blocks_run(session: AsyncSession) -> None:
    code = """
        import asyncio
        try:
            print("go", flush=True)
            await asyncio.sleep(100)
        finally:
            print("cleaned")
    """
    running = await begin(session, code)
    await session.interrupt()
    result = await running.result()
    assert (result.verdict, result.stdout) == ("interrupted", "go\ncleaned\n")


@pytest.mark.anyio
async def test_an_interrupt_ends_the_children_of_the_cell(session: AsyncSession) -> None:
    code = """
        import subprocess
        child = subprocess.Popen(["sleep", "1000"])
        print(child.pid, "go", flush=True)
        child.wait()
    """
    running = await begin(session, code)
    await session.interrupt()
    result = await running.result()
    assert result.verdict == "interrupted"
    await ok(session, "child.wait()")
    await gone(int(result.stdout.split()[0]))


@pytest.mark.anyio
async def test_children_are_interrupted_also_when_the_box_comes_too_late(
    session: AsyncSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a busy machine the cell may have ended before the box has its turn."""
    monkeypatch.setattr(Box, "interrupt_children", lambda _box, _serial: None)
    await test_an_interrupt_ends_the_children_of_the_cell(session)


@pytest.mark.anyio
async def test_an_interrupt_hits_the_running_cell_and_not_the_queued_ones(session: AsyncSession) -> None:
    running = await begin(session, "print('go', flush=True)\nwhile True: pass")
    behind = [await begin(session, f"print({n})", until=None) for n in range(3)]
    await session.interrupt()
    assert (await running.result()).verdict == "interrupted"
    for n, later in enumerate(behind):
        result = await later.result()
        assert (result.verdict, result.stdout) == ("ok", f"{n}\n")


@pytest.mark.anyio
async def test_an_interrupt_between_cells_says_that_nothing_runs(session: AsyncSession) -> None:
    await ok(session, "kept = 1")
    for _ in range(10):
        assert not await session.interrupt()
        await still_well(session)


SAY = "itertools.chain(map(posix.write, [1], [b'go\\n']), {then})"
"""Tells that it runs from inside a C call: no interrupt can come between the word and the deed."""

CANNOT_BE_LEFT = {
    "one long C call": f"sum({SAY.format(then='range(10**12)')})",
    "a loop that catches BaseException": (
        "while True:\n    try: print('go'); time.sleep(1000)\n    except BaseException: pass"
    ),
    "an async loop that catches BaseException": (
        "while True:\n    try: print('go'); await asyncio.sleep(1000)\n    except BaseException: pass"
    ),
    "C code that holds the GIL": f"collections.deque({SAY.format(then='iter(ctypes.PyDLL(None).pause, None)')}, 0)",
}


IGNORES_TWO = """
caught = 0
while caught < 3:
    try: print('go'); time.sleep(1000)
    except KeyboardInterrupt: caught += 1
caught
"""
"""So many are there until somebody asks for one more."""


@pytest.mark.anyio
async def test_where_nothing_is_killed_for_it_an_interrupt_may_be_asked_for_again(client: AsyncClient) -> None:
    async with client.session(interrupt_grace=0.3, interrupt_kills=False) as session:
        await ok(session, "import time\nkept = 1")
        steps = []
        async with asyncio.timeout(HANG), session.stream(IGNORES_TWO) as events:
            async for event in events:
                if isinstance(event, Status):
                    steps.append(event.state)
                if (isinstance(event, Output) and not steps) or steps[-1:] == ["unresponsive"]:
                    await session.interrupt()
                if isinstance(event, Finished):
                    assert (event.verdict, event.text) == ("ok", "3")
        assert steps == ["interrupting", "interrupting_again", "unresponsive", "interrupting"]
        assert (await session.run("kept")).text == "1"


@pytest.mark.anyio
async def test_where_nothing_is_killed_for_it_a_call_is_interrupted_when_it_ends(
    client: AsyncClient, tmp_path: Path
) -> None:
    async with client.session(interrupt_grace=0.1, interrupt_kills=False) as session:
        await ok(session, "kept, ended = 1, False")
        async with asyncio.timeout(HANG), session.stream(in_c_until(tmp_path / "end")) as events:
            async for event in events:
                if isinstance(event, Output):
                    await session.interrupt()
                if isinstance(event, Status) and event.state == "unresponsive":
                    (tmp_path / "end").touch()
                if isinstance(event, Finished):
                    assert event.verdict == "interrupted"
        assert (await session.run("(kept, ended)")).text == "(1, False)"


GOES_ON = """
import os, time
said = False
while True:
    try:
        if not said:
            said = True
            print("running", flush=True)
        while not os.access({end!r}, os.F_OK): time.sleep(0.01)
        break
    except KeyboardInterrupt: pass
for _ in range(12_000): print("x" * 999)
"""


@pytest.mark.anyio
async def test_where_nothing_is_killed_for_it_code_that_goes_on_loses_no_output(
    client: AsyncClient, tmp_path: Path
) -> None:
    code = GOES_ON.format(end=str(tmp_path / "end"))
    async with (
        asyncio.timeout(HANG),
        client.session(interrupt_grace=0.1, interrupt_kills=False, buffer_bytes=65_536) as session,
        session.stream(code) as events,
    ):
        async for event in events:
            if isinstance(event, Output) and event.text == "running\n":
                await session.interrupt()
            if isinstance(event, Status) and event.state == "unresponsive":
                (tmp_path / "end").touch()
                await asyncio.sleep(1.0)  # a slow reader
            if isinstance(event, Finished):
                assert (event.verdict, event.dropped) == ("ok", 0)


@pytest.mark.anyio
@pytest.mark.parametrize("later", [False, True])
async def test_a_time_limit_kills_also_what_an_interrupt_does_not(client: AsyncClient, *, later: bool) -> None:
    async with client.session(interrupt_grace=0.1 if later else 2.0, interrupt_kills=False) as session:
        await ok(session, "import itertools, posix")
        running = await begin(session, f"sum({SAY.format(then='range(10**12)')})", timeout=1.0)
        await session.interrupt()
        result = await running.result()
        assert result.verdict == "timeout"
        assert (await session.info()).state == "dead"


@pytest.mark.anyio
@pytest.mark.parametrize("name", CANNOT_BE_LEFT)
async def test_what_only_a_kill_can_end_is_killed_and_told(client: AsyncClient, name: str) -> None:
    async with client.session(interrupt_grace=0.3) as session:
        before = await session.info()
        await ok(session, "import asyncio, collections, ctypes, itertools, posix, time")
        running = await begin(session, CANNOT_BE_LEFT[name])
        await session.interrupt()
        result = await running.result()
        assert result.verdict == "killed"
        assert result.stdout.startswith("go\n")
        assert result.error is not None
        assert result.error.code == "execution_killed"
        steps = [event.state for event in running.events if isinstance(event, Status)]
        assert steps[0] == "interrupting"
        assert steps[-1] == "killing"
        await gone(before.pid)
        assert (await session.info()).state == "dead"
        await session.restart()
        assert (await session.info()).epoch == before.epoch + 1
        await still_well(session)


@pytest.mark.anyio
async def test_a_kill_takes_the_children_along(client: AsyncClient) -> None:
    async with client.session(interrupt_grace=0.3) as session:
        code = """
            import subprocess
            children = [
                subprocess.Popen(["sh", "-c", "trap '' INT TERM HUP; echo ready; while :; do sleep 1000; done"],
                                 stdout=subprocess.PIPE, start_new_session=away)
                for away in (False, True)
            ]
            for child in children: child.stdout.readline()
            while True:
                try:
                    print(*(child.pid for child in children), "go", flush=True)
                    for child in children: child.wait()
                except BaseException: pass
        """
        running = await begin(session, code)
        await session.interrupt()
        result = await running.result()
        assert result.verdict == "killed"
        await gone(*map(int, result.stdout.split()[:2]))


@pytest.mark.anyio
async def test_a_neighbour_does_not_notice_an_interrupt(client: AsyncClient, session: AsyncSession) -> None:
    async with client.session() as other:
        mine = await begin(session, "print('go', flush=True)\nwhile True: pass")
        theirs = await begin(other, "print('go', flush=True)\ninput()", until="go")
        await session.interrupt()
        assert (await mine.result()).verdict == "interrupted"
        assert (await theirs.result()).verdict == "error"
        result = await run(other, "'untouched'")
    assert result.text == "'untouched'"
