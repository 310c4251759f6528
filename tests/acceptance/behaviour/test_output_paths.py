"""Whatever way code writes, it arrives as output of its execution, before the verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from capsule.events import Finished, Output
from tests.acceptance.behaviour.support import begin, cell, gone, ok, run, still_well

if TYPE_CHECKING:
    from capsule import AsyncClient, AsyncSession

WRITERS = {
    "print": "print('hi')",
    "sys.stdout.write": "import sys\n_ = sys.stdout.write('hi\\n')",
    "sys.__stdout__": "import sys\nprint('hi', file=sys.__stdout__)",
    "sys.stdout.buffer": "import sys\n_ = sys.stdout.buffer.write(b'hi\\n')\nsys.stdout.flush()",
    "os.write": "import os\n_ = os.write(1, b'hi\\n')",
    "open by number": "import io\nf = io.open(1, 'w', closefd=False)\nprint('hi', file=f, flush=True)",
    "/dev/stdout": "with open('/dev/stdout', 'w') as f: print('hi', file=f)",
    "subprocess.run": "import subprocess\n_ = subprocess.run(['echo', 'hi'])",
    "os.system": "import os\n_ = os.system('echo hi')",
    "a shell line": "!echo hi",
    "os.fork": "import os\nif not os.fork():\n    os.write(1, b'hi\\n')\n    os._exit(0)\n_ = os.wait()",
    "C printf": "import ctypes\nc = ctypes.CDLL(None)\n_ = c.printf(b'hi\\n')",
    "C printf without a newline, flushed": (
        "import ctypes\nc = ctypes.CDLL(None)\n_ = c.printf(b'hi\\n'), c.fflush(None)"
    ),
    "C puts": "import ctypes\n_ = ctypes.CDLL(None).puts(b'hi')",
    "a thread": "import threading\nt = threading.Thread(target=print, args=['hi'])\nt.start()\nt.join()",
    "a pool of threads": "from multiprocessing.pool import ThreadPool\nwith ThreadPool(2) as p: p.map(print, ['hi'])",
    "a coroutine": "import asyncio\nasync def f(): print('hi')\nawait f()",
    "a task": "import asyncio\nasync def f(): print('hi')\nawait asyncio.create_task(f())",
    "asyncio.to_thread": "import asyncio\nawait asyncio.to_thread(print, 'hi')",
    "an asyncio subprocess": (
        "import asyncio\np = await asyncio.create_subprocess_exec('echo', 'hi')\n_ = await p.wait()"
    ),
}

ERRORS = {
    "logging": "import logging\nlogging.warning('hi')",
    "a handler": (
        "import logging\nlog = logging.getLogger('a')\nlog.addHandler(logging.StreamHandler())\nlog.error('hi')"
    ),
    "warnings": "import warnings\nwarnings.warn('hi')",
    "os.write": "import os\n_ = os.write(2, b'hi\\n')",
    "print": "import sys\nprint('hi', file=sys.stderr)",
    "a child": "import subprocess\n_ = subprocess.run('echo hi >&2', shell=True)",
    "perror": "import ctypes\nctypes.CDLL(None).perror(b'hi')",
}


@pytest.mark.anyio
@pytest.mark.parametrize("writer", WRITERS)
async def test_output_precedes_the_verdict(session: AsyncSession, writer: str) -> None:
    for _ in range(3):
        result = await ok(session, WRITERS[writer])
        assert (result.stdout, result.stderr) == ("hi\n", "")


@pytest.mark.anyio
@pytest.mark.parametrize("writer", ERRORS)
async def test_errors_precede_the_verdict(session: AsyncSession, writer: str) -> None:
    result = await ok(session, ERRORS[writer])
    assert "hi" in result.stderr
    assert result.stdout == ""


@pytest.mark.anyio
async def test_ways_of_writing_keep_their_order(session: AsyncSession) -> None:
    code = """
        import ctypes, os, subprocess, sys
        c = ctypes.CDLL(None)
        for n in range(20):
            print(n, 'print')
            os.write(1, b'%d os\\n' % n)
            c.printf(b'%d c\\n', n); c.fflush(None)
            subprocess.run(['echo', f'{n} child'])
            sys.stdout.write(f'{n} write\\n')
    """
    ways = ["print", "os", "c", "child", "write"]
    result = await ok(session, code)
    assert result.stdout.splitlines() == [f"{n} {way}" for n in range(20) for way in ways]


@pytest.mark.anyio
async def test_both_streams_keep_the_order_in_which_one_thread_wrote(session: AsyncSession) -> None:
    code = """
        import sys
        for n in range(200):
            print(n, file=sys.stdout if n % 3 else sys.stderr)
    """
    running = await begin(session, code, until="199")
    await running.result()
    assert running.text.split() == [str(n) for n in range(200)]


@pytest.mark.anyio
async def test_the_verdict_is_the_last_event(session: AsyncSession) -> None:
    code = "import os, sys\nfor n in range(2000): print(n); os.write(2, b'.')"
    events = [event async for event in session.stream(cell(code))]
    assert isinstance(events[-1], Finished)
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    text = "".join(event.text for event in events if isinstance(event, Output) and event.stream == "stdout")
    assert text.split() == [str(n) for n in range(2000)]


@pytest.mark.anyio
async def test_what_c_holds_back_precedes_the_verdict(session: AsyncSession) -> None:
    assert (
        await ok(session, "import ctypes\n_ = ctypes.CDLL(None).printf(b'no end of line')")
    ).stdout == "no end of line"


@pytest.mark.anyio
async def test_a_child_that_keeps_writing_neither_delays_nor_breaks_a_verdict(session: AsyncSession) -> None:
    """It shares its cell's descriptors, so what it writes later stands between what later cells write."""
    code = """
        import subprocess, sys
        child = subprocess.Popen(["sh", "-c", "echo begun; while :; do echo more; done"], stdout=1)
        seen = subprocess.run(["echo", "in the cell"])
        child.pid
    """
    result = await ok(session, code)
    assert "in the cell\n" in result.stdout
    for n in range(20):
        later = await ok(session, f"print({n})\n{n}")
        assert later.text == str(n)
        assert str(n) in later.stdout
        assert set(later.stdout.replace(str(n), "", 1)) <= set("begun more\n")
    await ok(session, "child.kill(); _ = child.wait()")
    await gone(int(result.text))
    await still_well(session)


GARBAGE = """
    import os, stat
    for name in os.listdir('/proc/self/fd'):
        fd = int(name)
        try:
            for junk in (b'junk', bytes(range(256)), b'\\x00' * 64):
                os.set_blocking(fd, False)
                os.write(fd, junk)
        except OSError:
            pass
"""


@pytest.mark.anyio
async def test_garbage_on_every_descriptor_hits_nobody_else(client: AsyncClient, session: AsyncSession) -> None:
    """A worker that wrecks its own sockets may be lost; it is told as such, and its neighbour sees nothing."""
    async with client.session(interrupt_grace=0.5) as victim:
        result = await run(victim, GARBAGE)
        assert result.verdict in {"ok", "worker_lost", "crashed", "error"}
        if (await victim.info()).state == "ready":
            after = await run(victim, "1 + 1")
            assert after.verdict != "ok" or after.text == "2"
        await victim.restart()
        await still_well(victim)
    await still_well(session)


@pytest.mark.anyio
async def test_writing_what_looks_like_the_protocol_is_only_text(session: AsyncSession) -> None:
    code = """
        import os
        for junk in (b'\\xff\\x00\\x00\\x7f', b'{"msg_type": "execute_reply"}', bytes(32) * 100, b'\\x83\\xa4type'):
            os.write(1, junk + b'|')
        print('end')
    """
    result = await ok(session, code)
    assert result.stdout.endswith("|end\n")
    assert '{"msg_type": "execute_reply"}|' in result.stdout
    await still_well(session)


BOTH_STREAMS = {
    "print to stderr, os.write to stdout": ("print('e', file=sys.stderr)", "os.write(1, b'o\\n')", "eo"),
    "os.write to stdout, print to stderr": ("os.write(1, b'o\\n')", "print('e', file=sys.stderr)", "oe"),
    "os.write to both": ("os.write(1, b'o\\n')", "os.write(2, b'e\\n')", "oe"),
    "print to stderr, a child to stdout": ("print('e', file=sys.stderr)", "os.system('echo o')", "eo"),
    "a child to stderr, print to stdout": ("os.system('echo e >&2')", "print('o')", "eo"),
}


@pytest.mark.anyio
@pytest.mark.parametrize("name", BOTH_STREAMS)
async def test_what_one_thread_writes_to_both_streams_keeps_its_order(session: AsyncSession, name: str) -> None:
    first, second, order = BOTH_STREAMS[name]
    letters = []
    execution = session.submit(f"import os, sys\nfor _ in range(10):\n    {first}\n    {second}")
    async for event in execution.events():
        if isinstance(event, Output):
            letters += event.text.split()
    assert "".join(letters) == order * 10
