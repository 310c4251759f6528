"""The box: one worker, told of to the end, and nothing of it left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from capsule.node.launch import ExitStatus, Zygote
from capsule_kernels.box import remove_tree
from tests.unit.kernels.forked import LONG, WAIT, Watch, forked, open_descriptors, running_zygote, told

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
async def zygote() -> AsyncIterator[Zygote]:
    async with running_zygote() as zygote:
        yield zygote


async def ending(zygote: Zygote, code: str, **limits: int) -> ExitStatus:
    async with forked(zygote, code) as child, asyncio.timeout(LONG):
        if limits:
            child.box.limit(**limits)
        return await child.box.exited()


async def test_tells_the_exit_code(zygote: Zygote) -> None:
    assert await ending(zygote, "import os; os._exit(7)") == ExitStatus(code=7)


async def test_tells_the_signal(zygote: Zygote) -> None:
    assert await ending(zygote, "import os; os.kill(os.getpid(), 11)") == ExitStatus(signal=11)


async def test_a_kill_by_the_node_is_told_as_one(zygote: Zygote) -> None:
    async with forked(zygote, WAIT) as child:
        child.box.kill()
        assert await child.box.exited() == ExitStatus(signal=signal.SIGKILL)
        async with asyncio.timeout(LONG):
            await child.box.gone()


async def test_a_worker_that_raises_says_so_on_its_stderr(zygote: Zygote) -> None:
    async with forked(zygote, "raise LookupError('nothing here')") as child:
        assert b"LookupError: nothing here" in await child.err.read()
        assert (await child.box.exited()).code == 70


async def test_bound_is_heard(zygote: Zygote) -> None:
    async with forked(zygote, WAIT) as child, asyncio.timeout(LONG):
        await child.box.bound()


async def test_the_directory_goes_with_the_worker(zygote: Zygote) -> None:
    code = "import os; os.makedirs(spec['dir'] + '/a/b'); open(spec['dir'] + '/a/b/c', 'w').close(); report(1)"
    async with forked(zygote, code + "; " + WAIT) as child:
        await child.report()
        await child.end()
        assert not Path(child.directory).exists()


LEFTOVERS = """
import os, signal, subprocess, sys, time
def daemon():
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            os.write(tell, b"%d\\n" % os.getpid())
            signal.pause()
        os._exit(0)
    os.wait()
read, tell = os.pipe()
daemon()
first = int(os.read(read, 100))
second = subprocess.Popen(["sleep", "1000"], start_new_session=True).pid
report([first, second])
"""


async def test_what_a_worker_leaves_dies_with_it(zygote: Zygote) -> None:
    """Daemons too: children that left the process group, the session and their parent."""
    async with forked(zygote, LEFTOVERS + "os.read(page, 1)") as child:
        watch = Watch(*await child.report())
        os.write(child.page, b"x")  # the worker ends of itself
        assert await child.box.exited() == ExitStatus(code=0)
        await watch.ended()
        async with asyncio.timeout(LONG):
            await child.box.gone()


async def test_closing_the_lease_kills_the_whole_tree(zygote: Zygote) -> None:
    async with forked(zygote, LEFTOVERS + "signal.pause()") as child:
        watch = Watch(*await child.report(), child.box.worker_pid, child.box.pid)
        child.box.close()
        await watch.ended()


async def test_closing_the_lease_kills_a_worker_that_c_code_holds(zygote: Zygote) -> None:
    async with forked(zygote, "report(1); sum(range(10**12))") as child:
        await child.report()
        await child.end()
        assert (await child.box.exited()).signal == signal.SIGKILL


RUNNER = """
import os
if os.fork() == 0:
    report(os.getpid())
    while True:
        if os.fork() > 0:
            os._exit(0)
        {step}
os.read(page, 1)
"""


@pytest.mark.parametrize("step", ["pass", "os.setsid()"], ids=["same group", "new session each time"])
async def test_a_process_that_runs_away_by_forking_is_caught(zygote: Zygote, step: str) -> None:
    """It has another number by the time one has read its number."""
    async with forked(zygote, RUNNER.format(step=step)) as child:
        await child.report()
        await child.end()


INTERRUPTED = """
import os, signal, sys
signal.signal(signal.SIGINT, lambda *_: os._exit(1))
read, tell = os.pipe()
middle = os.fork()
if middle == 0:
    leaf = os.fork()
    if leaf == 0:
        signal.signal(signal.SIGINT, lambda *_: os._exit(3))
        os.write(tell, b"x")
        while True: signal.pause()
    done = []
    signal.signal(signal.SIGINT, lambda *_: done.append(1))
    os.write(tell, b"x")
    code = os.waitstatus_to_exitcode(os.waitpid(leaf, 0)[1])
    os._exit(code + 10 * len(done))
ready = 0
while ready < 2: ready += len(os.read(read, 1))
report("ready")
report(os.waitstatus_to_exitcode(os.waitpid(middle, 0)[1]))
"""


async def test_interrupt_of_children_reaches_all_of_them_and_not_the_worker(zygote: Zygote) -> None:
    async with forked(zygote, INTERRUPTED) as child:
        assert await child.report() == "ready"
        child.box.interrupt_children(0)
        assert await child.report() == 13  # the leaf's 3, and the one between got one interrupt
        assert await child.box.exited() == ExitStatus(code=0)


async def test_a_box_that_is_killed_takes_its_worker_along(zygote: Zygote) -> None:
    async with forked(zygote, "report(1); sum(range(10**12))") as child:
        await child.report()
        watch = Watch(child.box.worker_pid)
        os.kill(child.box.pid, signal.SIGKILL)
        await watch.ended()
        async with asyncio.timeout(LONG):
            assert await child.box.exited() == ExitStatus()
            await child.box.gone()
        assert not Path(child.directory).exists()


async def test_a_box_cannot_be_ended_by_ordinary_signals(zygote: Zygote) -> None:
    async with forked(zygote, "import os; os.read(page, 1); report(os.getppid())") as child:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
            os.kill(child.box.pid, number)
        os.write(child.page, b"x")
        assert await child.report() == child.box.pid


async def test_a_box_holds_nothing_but_its_lease_the_page_and_its_directory(zygote: Zygote) -> None:
    """Least of all the write ends of the output: the node waits for their end."""
    code = """
import os, signal
if os.fork() == 0:
    signal.signal(signal.SIGINT, lambda *_: report("interrupted"))
    report("ready")
signal.pause()
"""
    async with forked(zygote, code) as child:
        assert await child.report() == "ready"
        child.box.interrupt_children(0)
        assert await child.report() == "interrupted"  # so the box is waiting by now
        kinds = sorted(target.split(":")[0] for target in open_descriptors(child.box.pid).values())
        assert kinds == ["/dev/null", "/dev/null", "/dev/null", child.directory, "anon_inode", "pipe", "socket"]


async def test_over_its_memory_limit_a_worker_is_killed_as_oom(zygote: Zygote) -> None:
    status = await ending(zygote, "x = b'x' * 2**28; " + WAIT, memory_bytes=2**27)
    assert status == ExitStatus(signal=signal.SIGKILL, exceeded="memory")


async def test_the_memory_of_children_counts(zygote: Zygote) -> None:
    code = "import os\nif os.fork() == 0: x = b'x' * 2**28\n" + WAIT
    assert (await ending(zygote, code, memory_bytes=2**27)).exceeded == "memory"


async def test_a_crash_under_a_memory_limit_is_no_oom(zygote: Zygote) -> None:
    assert await ending(zygote, "import os; os.abort()", memory_bytes=2**30) == ExitStatus(signal=signal.SIGABRT)


BOMB = """
import os, time
os.read(page, 1)
bound = len(os.listdir("/proc")) + 600
while True:  # a machine that could not bear more has enough of them: they wait for their end
    if len(os.listdir("/proc")) < bound:
        {step}
    else:
        time.sleep(0.1)
"""


@pytest.mark.parametrize("step", ["os.fork()", "os.fork() or os.setsid()"], ids=["same group", "new sessions"])
async def test_over_its_number_of_processes_the_whole_tree_is_killed(zygote: Zygote, step: str) -> None:
    async with forked(zygote, BOMB.format(step=step)) as child, asyncio.timeout(LONG):
        child.box.limit(max_processes=10)
        os.write(child.page, b"x")
        assert await child.box.exited() == ExitStatus(signal=signal.SIGKILL, exceeded="processes")
        await child.box.gone()


async def test_a_worker_leads_a_session_of_its_own(zygote: Zygote) -> None:
    """A process group is killed in one step, and a session may have its own share of the processor."""
    async with forked(zygote, "import os; report([os.getpgrp(), os.getsid(0)]); os.read(page, 1)") as child:
        assert await child.report() == [child.box.worker_pid] * 2


async def test_a_box_that_counts_processes_goes_first_where_it_may(zygote: Zygote) -> None:
    raised = subprocess.run([sys.executable, "-c", "import os; os.setpriority(os.PRIO_PROCESS, 0, -20)"], check=False)
    expected = -20 if raised.returncode == 0 else os.getpriority(os.PRIO_PROCESS, 0)
    code = "import os, signal\nsignal.signal(signal.SIGINT, lambda *_: report('interrupted'))"
    async with forked(zygote, f"{code}\nif os.fork() == 0: report('ready')\nwhile True: signal.pause()") as child:
        assert await child.report() == "ready"
        child.box.limit(max_processes=10)
        child.box.interrupt_children(0)
        assert await child.report() == "interrupted"  # so the box has read what was sent before
        assert os.getpriority(os.PRIO_PROCESS, child.box.pid) == expected
        group = Path(f"/proc/{child.box.pid}/autogroup")
        if expected == -20 and group.exists():
            assert group.read_text().endswith(" nice -20\n")
        assert os.getpriority(os.PRIO_PROCESS, child.box.worker_pid) == os.getpriority(os.PRIO_PROCESS, 0)


async def test_memory_that_processes_share_counts_once(zygote: Zygote) -> None:
    code = """
import os, signal
from capsule_kernels import memory
x = b'x' * 2**26
others = [os.fork() or signal.pause() for _ in range(4)]
tree = [os.getpid(), *others]
report([memory.exceeds(tree, 2**27), memory.exceeds(tree, 2**25), memory.exceeds([2**22 + 1], 1)])
"""
    assert await told(zygote, code) == [False, True, False]


def test_remove_tree_does_not_follow_links(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o500)
    inside = tmp_path / "inside"
    (inside / "deep").mkdir(parents=True)
    (inside / "link").symlink_to(outside)
    (inside / "deep").chmod(0)
    remove_tree(str(inside))
    assert not inside.exists()
    assert outside.stat().st_mode & 0o777 == 0o500
