"""The control group of a program: it and its tree are in it from the first, the system bounds it, and none is left."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from capsule_kernels.programs.groups import RunGroup
from capsule_kernels.sandbox.cgroups import CPU, MEMORY, PIDS, discover
from capsule_protocol.errors import ArgumentError, CapabilityFailed
from tests.acceptance.providers.programs import SHELL, shell
from tests.acceptance.providers.test_shell_attacks import code, python
from tests.acceptance.providers.test_shell_leftovers import begun, gone
from tests.acceptance.sandbox.as_user import command, own_home
from tests.acceptance.sandbox.rig import MANY_THREADS

if TYPE_CHECKING:
    from tests.acceptance.providers.programs import Shell

MIB = 2**20
PLACES = {place.controller: place for place in discover().places}
SANDBOXES = ("landlock", "namespaces")
LIMITS = {"memory_bytes": 64 * MIB, "processes": 300}

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(not {MEMORY, PIDS} <= PLACES.keys(), reason="this user can make no control groups here"),
]
with_cpu = pytest.mark.skipif(CPU not in PLACES, reason="this user can make no group for processor time here")

HELD = """
with open("kept", "wb") as file:
    for _ in range(200): file.write(bytes(2**20))
print("held")
"""
CHILD = "import os\nif os.fork() == 0: kept = os.urandom(200 * 2**20)\nelse: os.waitpid(-1, 0); print('on')"
THREADS = "import threading\nthreading.stack_size(65_536)" + MANY_THREADS + "print(len(many))\nstop.set()\n"


def groups(launcher: int) -> set[Path]:
    """Those of this launcher's runs."""
    return {path for place in PLACES.values() for path in Path(place.folder).glob(f"capsule-*-{launcher}-*")}


def group_of(pid: int, controller: str) -> str:
    """Where it is in the hierarchy of the controller."""
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(",") or (controllers == "" and PLACES[controller].version == 2):
            return path
    raise AssertionError(controller)


def above(controller: str) -> str:
    """Where those of runs are: below this process's own one, with version 2 beside it unless that is the topmost."""
    own = group_of(os.getpid(), controller)
    return own.rpartition("/")[0] if PLACES[controller].version != 1 else own.rstrip("/")


def family(run: Shell) -> tuple[psutil.Process, psutil.Process, list[psutil.Process]]:
    """The launcher, the one keeper, and all below that."""
    launcher = psutil.Process(run.provider._launcher.pid)
    (keeper,) = launcher.children()
    return launcher, keeper, keeper.children(recursive=True)


def limit(group: Path, first: str, second: str) -> int:
    """What the file of version 1, or that of version 2, says."""
    file = group / first
    return int((file if file.exists() else group / second).read_text())


@pytest.mark.parametrize("level", SANDBOXES)
async def test_a_program_and_its_tree_are_in_one_of_their_own_and_the_keeper_is_not(level: str) -> None:
    async with shell({"sh": {**SHELL["sh"], "limits": LIMITS}}, sandbox=level) as run:
        task = await begun(run, "setsid sleep 1000 & echo begun; sleep 1000; :")
        launcher, keeper, tree = family(run)
        assert len(tree) >= 2
        for controller in (MEMORY, PIDS):
            (inside,) = {group_of(process.pid, controller) for process in tree}
            own = group_of(os.getpid(), controller)
            assert inside.startswith(f"{above(controller)}/capsule-")
            assert {group_of(each.pid, controller) for each in (launcher, keeper)} == {own}
            group = Path(PLACES[controller].folder, Path(inside).name)
            if controller == MEMORY:
                assert limit(group, "memory.limit_in_bytes", "memory.max") == LIMITS["memory_bytes"]
            else:
                assert limit(group, "pids.max", "pids.max") == LIMITS["processes"] + 256
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def test_that_one_which_is_empty_was_swept_is_no_matter() -> None:
    """Its program may have ended, and the keeper have yet to look, when another launcher sweeps."""
    group = RunGroup([PLACES[MEMORY], PLACES[PIDS]], f"capsule-test-{os.getpid()}")
    group.ready(64 * MIB, 10)
    try:
        assert group.remove()
        assert group.exceeded() == ""
    finally:
        group.close()


async def test_two_runs_are_in_two_and_each_goes_with_its_run() -> None:
    async with shell(sandbox="namespaces") as run:
        seen = [(await run.run("cat /proc/self/cgroup")).text for _ in range(2)]
        launcher = run.provider._launcher.pid
        names = {part for text in seen for line in text.splitlines() for part in line.split("/") if "capsule-" in part}
        assert len(names) == 2
        await run.run("true")  # the launcher has seen the end of those before it was asked for this
        assert not {group.name for group in groups(launcher)} & names
    assert not groups(launcher)


async def test_without_a_sandbox_there_is_none() -> None:
    async with shell() as run:
        task = await begun(run, "echo begun; sleep 1000; :")
        launcher, _, tree = family(run)
        assert {group_of(each.pid, MEMORY) for each in tree} == {group_of(os.getpid(), MEMORY)}
        assert not groups(launcher.pid)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_memory_that_no_process_maps_is_bounded() -> None:
    """As what is in its own directory, where that is in memory."""
    async with shell(python(limits={"memory_bytes": 64 * MIB}), sandbox="namespaces") as run:
        ran = await run.run(["python", "-I", "-c", HELD], timeout=60)
        assert (ran.value.exceeded, ran.value.signal, ran.text) == ("memory", "SIGKILL", "")
    async with shell(python(limits={"memory_bytes": 2**30}), sandbox="namespaces") as run:
        assert await code(run, HELD) == "held"


@pytest.mark.parametrize("level", SANDBOXES)
async def test_a_program_may_write_and_read_more_than_its_memory(level: str, tmp_path: Path) -> None:
    """What the system keeps of files in memory it takes away when somebody needs that."""
    grant = {"sh": {**SHELL["sh"], "limits": {"memory_bytes": 64 * MIB}}}
    async with shell(grant, sandbox=level, roots={"w": {"path": str(tmp_path), "mode": "rw"}}) as run:
        ran = await run.run("head -c 200M /dev/zero > file; wc -c < file", cwd="w", timeout=60)
        assert (ran.value.exceeded, ran.text) == ("", str(200 * MIB))


@pytest.mark.parametrize("level", SANDBOXES)
async def test_a_child_that_is_killed_for_its_memory_takes_the_run_with_it(level: str) -> None:
    async with shell(python(limits={"memory_bytes": 64 * MIB}), sandbox=level) as run:
        ran = await run.run(["python", "-I", "-c", CHILD], timeout=60)
        assert (ran.value.exceeded, ran.text) == ("memory", "")


async def test_memory_within_the_limit_can_be_had() -> None:
    async with shell(python(limits={"memory_bytes": 100 * MIB}), sandbox="namespaces") as run:
        assert await code(run, "import os; print(len(os.urandom(50 * 2**20)))") == str(50 * MIB)


@pytest.mark.parametrize("level", SANDBOXES)
async def test_threads_are_bounded_and_more_processes_get_as_many(level: str) -> None:
    async with shell(python(), sandbox=level) as run:
        ran = await run.run(["python", "-I", "-c", THREADS + "import time; time.sleep(1000)"], timeout=60)
        assert (ran.value.exceeded, ran.value.signal) == ("processes", "SIGKILL")
    async with shell(python(limits={"processes": 1000}), sandbox=level) as run:
        assert await code(run, THREADS) == "400"


@pytest.mark.parametrize("level", SANDBOXES)
async def test_a_fork_bomb_that_is_refused_more_before_anybody_has_counted_is_told(level: str) -> None:
    async with shell({"sh": {**SHELL["sh"], "limits": {"processes": 300}}}, sandbox=level) as run:
        ran = await run.run("f() { f | f & f; }; f", timeout=60)
        assert ran.value.exceeded == "processes"


@with_cpu
@pytest.mark.parametrize("level", SANDBOXES)
async def test_processor_time_is_bounded_where_that_is_asked_for(level: str) -> None:
    async with shell({"sh": {**SHELL["sh"], "limits": {"cpus": 0.25}}}, sandbox=level) as run:
        task = await begun(run, "echo begun; while :; do :; done")
        _, keeper, tree = family(run)
        inside = group_of(tree[0].pid, CPU)
        assert group_of(keeper.pid, CPU) == group_of(os.getpid(), CPU) != inside
        group = Path(PLACES[CPU].folder, Path(inside).name)
        if PLACES[CPU].version == 1:
            quota, period = [int((group / f"cpu.cfs_{what}_us").read_text()) for what in ("quota", "period")]
        else:
            quota, period = map(int, (group / "cpu.max").read_text().split())
        assert quota / period == 0.25
        async with asyncio.timeout(60):
            while not int((group / "cpu.stat").read_text().split("nr_throttled ")[1].split()[0]):
                await asyncio.sleep(0)  # beside others it may not get as much as it is allowed
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_without_a_sandbox_nothing_would_bound_processor_time() -> None:
    with pytest.raises(ArgumentError, match=r"programs.sh.limits.cpus.*without a sandbox"):
        async with shell({"sh": {**SHELL["sh"], "limits": {"cpus": 0.25}}}):
            pass


@pytest.mark.parametrize("level", SANDBOXES)
@pytest.mark.parametrize("victim", ["keeper", "program"])
async def test_that_of_a_run_which_was_killed_goes_too(level: str, victim: str) -> None:
    async with shell(sandbox=level) as run:
        task = await begun(run, "setsid sleep 1000 & echo begun; sleep 1000; :")
        launcher, keeper, tree = family(run)
        before = groups(launcher.pid)
        (keeper if victim == "keeper" else tree[0]).send_signal(signal.SIGKILL)
        with suppress(CapabilityFailed):
            await task
        await gone([keeper, *tree])
        await run.run("true")  # the launcher has seen all that ended before it was asked for this
        assert before
        assert not groups(launcher.pid) & before


@pytest.mark.parametrize("level", SANDBOXES)
async def test_the_next_launcher_sweeps_after_one_that_was_killed(level: str) -> None:
    async with shell(sandbox=level) as run:
        task = await begun(run, "echo begun; sleep 1000; :")
        launcher, keeper, tree = family(run)
        launcher.kill()
        os.waitid(os.P_PID, launcher.pid, os.WEXITED | os.WNOWAIT)
        await run.run("true")
        assert groups(launcher.pid)  # somebody is in it
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await gone([keeper, *tree])
    async with shell(sandbox=level) as run:
        await run.run("true")
        assert not groups(launcher.pid)


LACKING = """
import os, sys
from capsule_kernels.programs import confinement
os.setgroups([])
os.setresuid(65_534, 65_534, 65_534)
print(confinement.lacking("cpus"))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user may have been given some")
def test_a_machine_that_cannot_bound_processor_time_says_why() -> None:
    if any(place.version != 1 for place in PLACES.values()):
        pytest.skip("version 2 may have been delegated")
    told = subprocess.check_output([sys.executable, "-c", LACKING], text=True)
    assert told.startswith("no group can be made in ")


PLAIN = """
import asyncio
from tests.acceptance.providers.programs import shell
async def main():
    async with shell(sandbox="namespaces") as run:
        with open("/proc/self/cgroup") as file:
            print((await run.run("cat /proc/self/cgroup")).text == file.read().strip())
asyncio.run(main())
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="the other tests do it")
def test_where_none_can_be_had_programs_run_without() -> None:
    if any(place.version != 1 for place in PLACES.values()):
        pytest.skip("version 2 may have been delegated")
    with own_home() as home:
        done = subprocess.run(
            command(home, sys.executable, "-c", PLAIN),
            cwd=Path(__file__).parents[3],
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert done.stdout == "True\n", done.stderr
