"""The zygote: each hazard of forking from a process that has imported the world, and what it does about it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgpack
import pytest

from capsule.node.launch import ExitStatus, Zygote
from capsule_protocol.errors import EnvironmentFailed, WorkerLost
from tests.unit.kernels.forked import (
    CHILDREN,
    LONG,
    WAIT,
    WORKER,
    Watch,
    boxes_of,
    forked,
    reader_of,
    running_zygote,
    told,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

pytestmark = pytest.mark.anyio


@pytest.fixture
def module(tmp_path: Path) -> Callable[[str], None]:
    """Writes the module `preloaded`, which `preloading` imports."""

    def write(source: str) -> None:
        (tmp_path / "preloaded.py").write_text(source)

    return write


@pytest.fixture
def preloading(tmp_path: Path) -> dict[str, Any]:
    return {"preload": ["preloaded"], "path": [str(tmp_path)]}


@pytest.fixture(scope="module")
async def zygote() -> AsyncIterator[Zygote]:
    async with running_zygote(preload=["numpy"]) as zygote:
        yield zygote


# What children must not share


async def test_random_numbers_differ_between_workers(zygote: Zygote) -> None:
    code = "import random, numpy; report([random.random(), numpy.random.random(), len(numpy.random.get_state()[1])])"
    first, second = await told(zygote, code), await told(zygote, code)
    assert first[0] != second[0]
    assert first[1] != second[1]


@pytest.mark.parametrize("kind", ["MT19937", "PCG64"])
async def test_numpy_numbers_differ_whatever_a_preload_has_drawn(module: Any, preloading: Any, kind: str) -> None:
    """Of a pair of normal numbers the second is kept for the next call."""
    module(f"import numpy.random as r; r.set_bit_generator(r.{kind}()); r.standard_normal()")
    code = "import numpy; report([numpy.random.standard_normal(), numpy.random.random(), numpy.random.random()])"
    async with running_zygote(**preloading) as zygote:
        first, second = await told(zygote, code), await told(zygote, code)
    assert not set(first) & set(second)


async def test_the_collector_runs_and_leaves_shared_objects_alone(zygote: Zygote) -> None:
    enabled, frozen, tracked = await told(
        zygote, "import gc; report([gc.isenabled(), gc.get_freeze_count(), len(gc.get_objects())])"
    )
    assert enabled
    assert frozen > 5_000
    assert tracked < frozen


async def test_buffered_output_of_a_preload_is_not_repeated(module: Any, preloading: Any) -> None:
    module("import sys; sys.stdout.write('once')")
    code = "import os, sys; os.dup2(stdout, 1); sys.stdout.flush(); report('end')"
    async with running_zygote(**preloading) as zygote:
        assert await told(zygote, code) == "end"


async def test_main_is_empty(zygote: Zygote) -> None:
    """Processes that multiprocessing spawns run the parent's main module: it must not be the zygote."""
    code = """
import sys, multiprocessing.spawn
data = multiprocessing.spawn.get_preparation_data("x")
main = sys.modules["__main__"]
report([sorted(set(data) & {"init_main_from_name", "init_main_from_path"}), sys.argv, "main" in vars(main)])
"""
    assert await told(zygote, code) == [[], [""], False]


async def test_a_worker_can_spawn_processes(zygote: Zygote) -> None:
    code = """
import multiprocessing
process = multiprocessing.get_context("spawn").Process(target=abs, args=(1,))
process.start(); process.join(); report(process.exitcode)
"""
    assert await told(zygote, code) == 0


SIGNALS = """
import os, signal, socket
signal.signal(signal.SIGTERM, lambda *_: None)
signal.signal(signal.SIGINT, signal.SIG_IGN)
ours, theirs = socket.socketpair()
theirs.setblocking(False)
signal.set_wakeup_fd(theirs.fileno())
"""


async def test_signals_are_those_of_a_fresh_interpreter(module: Any, preloading: Any) -> None:
    module(SIGNALS)
    code = """
import signal
report([signal.getsignal(signal.SIGTERM) == signal.SIG_DFL,
        signal.getsignal(signal.SIGINT) == signal.default_int_handler,
        signal.getsignal(signal.SIGPIPE) == signal.SIG_IGN,
        signal.set_wakeup_fd(-1), len(signal.pthread_sigmask(signal.SIG_BLOCK, []))])
"""
    async with running_zygote(**preloading) as zygote:
        assert await told(zygote, code) == [True, True, True, -1, 0]


async def test_a_worker_can_arm_faulthandler(module: Any, preloading: Any) -> None:
    """A timer of the zygote has no thread in the child, which would wait for it for ever."""
    module("import faulthandler; faulthandler.dump_traceback_later(1000)")
    code = "import faulthandler; faulthandler.dump_traceback_later(1000, file=stdout); report('armed')"
    async with running_zygote(**preloading) as zygote:
        assert await told(zygote, code) == "armed"


DESCRIPTORS = """
import os, select, socket, pathlib
here = pathlib.Path(__file__)
(here.parent / "text").write_text("one\\ntwo\\nthree\\n")
reading = open(here.parent / "text", buffering=1)
os.lseek(reading.fileno(), 4, os.SEEK_SET)
writing = open(here.parent / "log", "w")
left, right = socket.socketpair()
epoll = select.epoll()
numbers = [item.fileno() for item in (writing, left, right, epoll)]
"""


async def test_descriptors_of_a_preload_are_cut_off(module: Any, preloading: Any, tmp_path: Path) -> None:
    """A socket or a file being written would join sessions to each other and to the zygote."""
    module(DESCRIPTORS)
    code = """
import os, preloaded
os.write(preloaded.writing.fileno(), b"mine")
report([os.readlink(f"/proc/self/fd/{number}") for number in preloaded.numbers])
"""
    async with running_zygote(**preloading) as zygote:
        assert await told(zygote, code) == ["/dev/null"] * 4
    assert (tmp_path / "log").read_text() == ""


async def test_a_file_that_a_preload_reads_has_its_own_place_in_each_worker(module: Any, preloading: Any) -> None:
    module(DESCRIPTORS)
    code = "import preloaded; report(preloaded.reading.read())"
    async with running_zygote(**preloading) as zygote:
        assert [await told(zygote, code) for _ in range(2)] == ["two\nthree\n"] * 2


async def test_a_worker_holds_no_descriptor_of_the_zygote(zygote: Zygote) -> None:
    code = """
import os
names = [os.readlink(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{n}")]
report(sorted({name.split(":")[0] for name in names if not name.startswith("/proc")}))
"""
    assert await told(zygote, code) == ["/dev/null", "pipe"]


# What the zygote inherits


async def test_secrets_of_the_node_are_not_in_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_SECRET", "hunter2")
    code = """
import os
report([dict(os.environ), "hunter2" in open("/proc/self/environ").read(), os.getcwd()])
"""
    async with running_zygote(env={"OMP_NUM_THREADS": "2", "MINE": "yes"}) as zygote:
        environ, visible, directory = await told(zygote, code)
    assert "A_SECRET" not in environ
    assert not visible
    assert environ["PATH"] == os.environ["PATH"]
    assert (environ["MINE"], environ["OPENBLAS_NUM_THREADS"], environ["OMP_NUM_THREADS"]) == ("yes", "1", "2")
    assert directory == "/"


# Preloads that fail


async def failure(path: Path, source: str) -> EnvironmentFailed:
    (path / "preloaded.py").write_text(source)
    with pytest.raises(EnvironmentFailed) as caught:
        await Zygote.start(preload=["preloaded"], path=[str(path), CHILDREN], worker=WORKER)
    return caught.value


async def test_a_failing_import_is_told_with_its_traceback(tmp_path: Path) -> None:
    error = await failure(tmp_path, "def broken():\n    raise ValueError('half done')\nbroken()")
    assert "ValueError: half done" in error.message
    assert "in broken" in error.details["traceback"]
    assert error.code == "environment_failed"


async def test_a_missing_module_is_named() -> None:
    with pytest.raises(EnvironmentFailed, match="No module named 'no_such_module'"):
        await Zygote.start(preload=["no_such_module"], path=[CHILDREN], worker=WORKER)


async def test_an_error_that_cannot_be_shown_is_told_all_the_same(tmp_path: Path) -> None:
    source = "class Mute(Exception):\n    def __str__(self): raise KeyError\nraise Mute"
    assert "Mute" in (await failure(tmp_path, source)).message
    assert "\\udc80" in (await failure(tmp_path, "raise ValueError('\\udc80')")).message


async def test_a_preload_that_exits_is_a_failure(tmp_path: Path) -> None:
    assert "SystemExit" in (await failure(tmp_path, "raise SystemExit(3)")).message


async def test_a_preload_that_ends_the_process_is_told_with_its_last_words(tmp_path: Path) -> None:
    error = await failure(tmp_path, "import os; os.write(2, b'no licence\\n'); os._exit(3)")
    assert "no licence" in error.message
    assert "(3)" in error.message


async def test_a_preload_that_leaves_a_thread_is_refused(tmp_path: Path) -> None:
    """A lock that the thread holds at the moment of a fork would stay locked in the child."""
    source = "import threading; threading.Thread(target=threading.Event().wait, name='poller', daemon=True).start()"
    error = await failure(tmp_path, source)
    assert "preloaded" in error.message
    assert "poller" in error.message
    assert 'start_method = "spawn"' in error.hint


# Its end


async def test_processes_of_a_failed_preload_end_with_the_zygote(module: Any, tmp_path: Path) -> None:
    """Without the help of the node, which may have gone."""
    module("import subprocess; pid = subprocess.Popen(['sleep', '1000']).pid; raise ValueError(f'-{pid}-')")
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    command = [sys.executable, "-P", "-m", "capsule_kernels.zygote", "--fd", str(theirs.fileno())]
    with ours, theirs, subprocess.Popen(command, pass_fds=[theirs.fileno()]) as process:
        ours.send(msgpack.packb({"op": "setup", "path": [str(tmp_path)], "preload": ["preloaded"]}))
        answer = await asyncio.to_thread(ours.recv, 2**17)
        process.wait()
    await Watch(int(msgpack.unpackb(answer)["error"]["message"].split("-")[1])).ended()


async def test_processes_of_a_preload_do_not_stay(module: Any, preloading: Any) -> None:
    """Sessions would share them."""
    module("import subprocess; pid = subprocess.Popen(['sleep', '1000']).pid")
    async with running_zygote(**preloading) as zygote:
        await Watch(await told(zygote, "import preloaded; report(preloaded.pid)")).ended()


async def test_workers_go_on_when_their_zygote_dies() -> None:
    async with running_zygote() as zygote, forked(zygote, "import os; os.read(page, 1); report('alive')") as child:
        os.kill(zygote.pid, signal.SIGKILL)
        await zygote.died.wait()
        os.write(child.page, b"x")
        assert await child.report() == "alive"
        assert (await child.box.exited()).code == 0


async def test_the_system_kills_a_worker_before_the_node_when_no_memory_is_left(zygote: Zygote) -> None:
    mine = int(Path("/proc/self/oom_score_adj").read_text())
    async with forked(zygote, "report(open('/proc/self/oom_score_adj').read().strip()); " + WAIT) as child:
        assert int(await child.report()) == min(1000, mine + 300)
        assert int(Path(f"/proc/{child.box.pid}/oom_score_adj").read_text()) == mine
    assert int(Path(f"/proc/{zygote.pid}/oom_score_adj").read_text()) == mine


async def test_orphans_of_a_killed_box_are_killed(zygote: Zygote) -> None:
    code = (
        """
import subprocess
first = subprocess.Popen(["sh", "-c", "sleep 1000 & echo $!; wait"], stdout=-1, start_new_session=True)
report([first.pid, int(first.stdout.readline())])
"""
        + WAIT
    )
    async with forked(zygote, code) as child:
        watch = Watch(*await child.report(), child.box.worker_pid)
        os.kill(child.box.pid, signal.SIGKILL)
        await watch.ended()


async def test_a_box_that_is_stopped_is_ended(zygote: Zygote) -> None:
    """User code can stop its parent; the session must end all the same."""
    code = "import os, signal; os.read(page, 1); os.kill(os.getppid(), signal.SIGSTOP); " + WAIT
    async with forked(zygote, code) as child, asyncio.timeout(LONG):
        os.write(child.page, b"x")
        assert await child.box.exited() == ExitStatus()
        await child.box.gone()


async def test_boxes_are_reaped() -> None:
    async with running_zygote() as zygote:
        for _ in range(3):
            async with forked(zygote, "pass") as child:
                watch = Watch(child.box.pid)
            await watch.ended()
        async with forked(zygote, WAIT), forked(zygote, WAIT) as last:
            assert last.box.pid in boxes_of(zygote.pid)
            assert len(boxes_of(zygote.pid)) == 2


async def test_a_bad_request_is_answered_and_harms_nothing(zygote: Zygote) -> None:
    with pytest.raises(WorkerLost, match="descriptors"):
        await zygote.fork({"dir": "/nonexistent"}, [0])
    assert await told(zygote, "report('fine')") == "fine"


# SIGKILL of the node


NODE = """
import asyncio, os, sys, tempfile
from capsule.node.launch import ExitStatus, Zygote
async def main():
    zygote = await Zygote.start(preload=sys.argv[2:], path=[*{path!r}], worker="box_worker:main")
    boxes = [await zygote.fork(dict(dir=tempfile.mkdtemp(), code=sys.argv[1]), [1, 2, 0]) for _ in range(2)]
    {then}
    await asyncio.Event().wait()
asyncio.run(main())
"""


class Node(NamedTuple):
    """A node in a process of its own, whose workers report to its standard output."""

    process: subprocess.Popen[bytes]
    out: asyncio.StreamReader

    async def numbers(self, count: int) -> list[int]:
        async with asyncio.timeout(LONG):
            return [int(await self.out.readline()) for _ in range(count)]


@asynccontextmanager
async def node(path: list[str], code: str, *preload: str, then: str = "pass") -> AsyncIterator[Node]:
    read, write = os.pipe()
    source = NODE.format(path=[CHILDREN, *path], then=then)
    process = subprocess.Popen([sys.executable, "-c", source, code, *preload], stdout=write)
    os.close(write)
    out, transport = await reader_of(read)
    try:
        yield Node(process, out)
    finally:
        process.kill()
        process.wait()
        transport.close()
        await asyncio.sleep(0)


HELD = """
import os, subprocess
for pid in (os.getpid(), os.getppid(), subprocess.Popen(["sleep", "1000"], start_new_session=True).pid):
    report(pid)
sum(range(10**12))
"""


async def test_nothing_is_left_when_the_node_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither workers that C code holds, nor their children, boxes, the zygote, or directories."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    async with node([], HELD, then="os.write(1, b'%d\\n' % zygote.pid)") as own:
        watch = Watch(*await own.numbers(7))
        assert len(list(tmp_path.iterdir())) == 2
        own.process.kill()
        await watch.ended()
    assert not list(tmp_path.iterdir())


async def test_a_worker_dies_with_its_box_when_nobody_else_could_kill_it() -> None:
    """The kernel does it."""
    code = "import os; os.write(stdout, b'%d\\n%d\\n' % (os.getpid(), os.getppid())); sum(range(10**12))"
    async with node([], code, then="os.write(1, b'%d\\n' % -zygote.pid)") as own:
        reported = await own.numbers(5)
        zygote = -min(reported)
        workers, boxes = [number for number in reported if number > 0][::2], [n for n in reported if n > 0][1::2]
        own.process.send_signal(signal.SIGSTOP)
        watch = Watch(*workers)
        for pid in (zygote, *boxes):
            os.kill(pid, signal.SIGKILL)
        await watch.ended()


IMPORTING = """
import os, subprocess
child = subprocess.Popen(["sleep", "1000"])
tell = os.open("{fifo}", os.O_WRONLY)
os.write(tell, b"%d\\n%d\\n" % (os.getpid(), child.pid))
os.close(tell)
sum(range(10**12))
"""


async def test_nothing_is_left_when_the_node_is_killed_while_its_zygote_imports(module: Any, tmp_path: Path) -> None:
    """The zygote is in C code and cannot see it; what it started meanwhile goes too."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    module(IMPORTING.format(fifo=fifo))
    reader = os.open(fifo, os.O_RDWR)
    async with node([str(tmp_path)], "", "preloaded") as own:
        with os.fdopen(reader, "rb", buffering=0) as told_by_module:
            loop = asyncio.get_running_loop()
            ready = asyncio.Event()
            loop.add_reader(reader, ready.set)
            async with asyncio.timeout(LONG):
                await ready.wait()
            loop.remove_reader(reader)
            watch = Watch(*map(int, told_by_module.read(100).split()))
        own.process.kill()
        await watch.ended()


async def test_a_forked_child_of_the_node_keeps_nothing_alive() -> None:
    """Programs fork (multiprocessing does): the child inherits the leases but must not hold them."""
    forking = """
    child = os.fork()
    if child == 0:
        import signal
        signal.pause()
    os.write(1, b"%d\\n%d\\n" % (-child, zygote.pid))
"""
    async with node([], "report(__import__('os').getpid()); " + WAIT, then=forking.strip()) as own:
        reported = await own.numbers(4)
        child = -min(reported)
        try:
            watch = Watch(*(pid for pid in reported if pid > 0))
            own.process.kill()
            await watch.ended()
        finally:
            os.kill(child, signal.SIGKILL)
