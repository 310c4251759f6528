"""However a caller ends, it leaves no process and no file behind."""

from __future__ import annotations

import asyncio
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from capsule import AsyncClient, Client
from tests.acceptance.behaviour.support import HANG, begin, descendants, gone, gone_since, still_well, wait_gone
from tests.unit.kernels.forked import open_descriptors, opened_since

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[3]

PRELUDE = """
import os, sys
from capsule import Client
COLD = {"environments": {"default": {"min_idle": 0}}}  # workers made ahead might begin after the test has looked
def tell(*words): print(*words, flush=True)
def tell_ready(event):
    if getattr(event, "text", ""): tell("ready")
"""

CALLERS = {
    "an idle session": """
        with Client(**COLD) as client, client.session() as session:
            session.run("1"); tell("ready"); sys.stdin.read()
    """,
    "running code": """
        with Client(**COLD) as client, client.session() as session:
            session.run("print('go', flush=True)\\nwhile True: pass", on_event=tell_ready)
    """,
    "code that holds the interpreter": """
        with Client(**COLD) as client, client.session() as session:
            session.run("print('go', flush=True)\\nsum(range(10**12))", on_event=tell_ready)
    """,
    "children that ignore signals": """
        code = '''
        import os, subprocess
        stubborn = "trap '' INT TERM HUP; echo; while :; do sleep 1000; done"
        for new in (False, True):
            subprocess.Popen(["sh", "-c", stubborn], stdout=subprocess.PIPE, start_new_session=new).stdout.readline()
        subprocess.run(["sh", "-c", "sleep 1000 >/dev/null 2>&1 &"])
        '''
        with Client(**COLD) as client, client.session() as session:
            import textwrap
            session.run(textwrap.dedent(code)).raise_for_error(); tell("ready"); sys.stdin.read()
    """,
    "five sessions": """
        with Client(**COLD) as client:
            sessions = [client.session() for _ in range(5)]
            entered = [session.__enter__() for session in sessions]
            for session in entered: session.run("1")
            tell("ready"); sys.stdin.read()
    """,
    "a dead worker": """
        with Client(**COLD) as client, client.session() as session:
            session.run("import os; os._exit(1)"); tell("ready"); sys.stdin.read()
    """,
}


class Caller:
    """A process that uses Capsule, and everything it has started."""

    def __init__(self, source: str, directory: Path) -> None:
        self.directory = directory
        self.process = subprocess.Popen(
            [sys.executable, "-c", PRELUDE + textwrap.dedent(source)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=ROOT,
            env={**os.environ, "TMPDIR": str(directory)},
            start_new_session=True,
        )

    def until_ready(self) -> set[int]:
        """Wait for its word, and answer the processes it has started."""
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], HANG)
        assert ready, "the caller did not get ready"
        line = self.process.stdout.readline()
        assert line == b"ready\n", self.process.communicate()
        return {child.pid for child in psutil.Process(self.process.pid).children(recursive=True)}

    def end(self) -> bytes:
        """Wait for its end; answers what it wrote to stderr."""
        _, errors = self.process.communicate(timeout=HANG)
        return errors

    def files(self) -> list[str]:
        return sorted(str(path.relative_to(self.directory)) for path in self.directory.rglob("*"))


@pytest.fixture
def directory() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="caller-"))
    yield directory
    shutil.rmtree(directory)


def assert_nothing_left(caller: Caller, pids: set[int]) -> None:
    wait_gone(pids)
    assert caller.files() == []


@pytest.mark.parametrize("name", CALLERS)
def test_a_caller_that_is_killed_leaves_nothing(directory: Path, name: str) -> None:
    caller = Caller(CALLERS[name], directory)
    pids = caller.until_ready()
    assert pids
    caller.process.kill()
    caller.end()
    assert_nothing_left(caller, pids)


@pytest.mark.parametrize(
    "name", ["an idle session", "running code", "code that holds the interpreter", "a dead worker"]
)
def test_ctrl_c_leaves_nothing(directory: Path, name: str) -> None:
    """A terminal sends the signal to the whole foreground group."""
    caller = Caller(CALLERS[name], directory)
    pids = caller.until_ready()
    os.killpg(caller.process.pid, signal.SIGINT)
    errors = caller.end()
    assert caller.process.returncode != 0
    assert b"KeyboardInterrupt" in errors
    assert_nothing_left(caller, pids)


OPEN = "client = Client(**COLD); session = client.session().__enter__()\n"
BLOCK = "with Client(**COLD) as client, client.session() as session:\n    session.run('1')\n    "
WAIT = "tell('ready'); sys.stdin.read(1)"

ENDINGS = {
    "leaving the block": BLOCK + WAIT,
    "an exception": BLOCK + WAIT + "\n    1 / 0",
    "sys.exit in the block": BLOCK + WAIT + "\n    sys.exit(3)",
    "nothing closed": OPEN + WAIT,
    "sys.exit": OPEN + WAIT + "\nsys.exit(3)",
    "os._exit": OPEN + WAIT + "\nos._exit(0)",
    "SIGTERM": OPEN + WAIT + "\nos.kill(os.getpid(), 15)",
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_an_ending_leaves_nothing(directory: Path, ending: str) -> None:
    caller = Caller(ENDINGS[ending], directory)
    pids = caller.until_ready()
    assert pids
    assert caller.process.stdin is not None
    with suppress(BrokenPipeError):
        caller.process.stdin.write(b"x")
        caller.process.stdin.flush()
    caller.end()
    assert_nothing_left(caller, pids)


@pytest.mark.anyio
async def test_leaving_a_session_ends_its_processes_and_files(cold: AsyncClient, private_tmp: Path) -> None:
    async with cold.session() as first:
        await still_well(first)
        before = set(private_tmp.rglob("*"))
        children = descendants()
        async with cold.session() as session:
            await still_well(session)
            await begin(session, "print('go', flush=True)\nimport subprocess\nsubprocess.run(['sleep', '1000'])")
            pid = (await session.info()).pid
            assert pid in {process.pid for process in descendants() - children}
        await gone_since(children)
        await gone(pid)
        assert set(private_tmp.rglob("*")) == before
        await still_well(first)


@pytest.mark.anyio
async def test_an_exception_in_the_block_ends_them_too(cold: AsyncClient, private_tmp: Path) -> None:
    before = set(private_tmp.rglob("*"))
    pid = 0

    async def fail() -> None:
        nonlocal pid
        async with cold.session() as session:
            await still_well(session)
            pid = (await session.info()).pid
            raise LookupError

    with pytest.raises(LookupError):
        await fail()
    await gone(pid)
    assert set(private_tmp.rglob("*")) <= before


def test_the_synchronous_client_ends_everything(private_tmp: Path) -> None:
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    with Client() as client:
        for _ in range(3):
            with client.session() as session:
                assert session.run("6 * 7").text == "42"
        left_open = client.session().__enter__()
        assert left_open.run("1").verdict == "ok"
        started = {child.pid for child in psutil.Process().children(recursive=True)} - before
        assert started
    wait_gone(started)


@pytest.mark.anyio
async def test_descriptors_and_threads_of_the_caller_end_where_they_began() -> None:
    node = psutil.Process()
    async with AsyncClient() as client, client.session() as session:
        await still_well(session)
    descriptors, threads = open_descriptors(), node.num_threads()
    for _ in range(3):
        async with AsyncClient() as client, client.session() as session:
            await still_well(session)
    assert not opened_since(descriptors)
    async with asyncio.timeout(HANG):
        while node.num_threads() > threads:  # the system lists one for a moment longer than it lives
            await asyncio.sleep(0.01)
