"""The control group of a box: its worker is in it from the first, the system bounds it, and none is left behind."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from capsule_kernels.sandbox.cgroups import CPU, MEMORY, PIDS, discover
from capsule_kernels.sandbox.groups import Group
from capsule_protocol.errors import WorkerLost
from tests.acceptance.sandbox.rig import MANY_THREADS, held_in_sockets
from tests.unit.kernels.forked import LONG, WAIT, Watch, forked, running_zygote, spare_of, told

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from capsule.node.launch import ExitStatus, Zygote
    from tests.unit.kernels.forked import Forked

MIB = 2**20
SANDBOX = {"level": "landlock", "uid": 0 if os.geteuid() == 0 else None}
PLACES = {place.controller: place for place in discover().places}

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(not {MEMORY, PIDS} <= PLACES.keys(), reason="this user can make no control groups here"),
]

SOCKETS = held_in_sockets(200 * 2**20) + 'report("held")'
WRITTEN = """
import os, sys
os.read(0, 1)
with open(sys.argv[1], "wb") as file:
    for _ in range(200):
        file.write(bytes(2**20))
        file.flush()
        os.fdatasync(file.fileno())  # what a slow disk has not got yet cannot be taken away
"""
THREADS = MANY_THREADS + "report(len(many))\nstop.set()\n"


@pytest.fixture
async def zygote() -> AsyncIterator[Zygote]:
    async with running_zygote(sandbox=SANDBOX) as zygote:
        yield zygote


def group_of(pid: int, controller: str = MEMORY) -> str:
    """Where it is in the hierarchy of the controller."""
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(",") or (controllers == "" and PLACES[controller].version == 2):
            return path
    raise AssertionError(controller)


def above(controller: str) -> str:
    """Where those of boxes are: below this process's own one, with version 2 beside it unless that is the topmost."""
    own = group_of(os.getpid(), controller)
    return own.rpartition("/")[0] if PLACES[controller].version != 1 else own.rstrip("/")


async def folder_of(child: Forked, controller: str = MEMORY) -> Path:
    await child.box.bound()  # it has joined before it runs any code
    return Path(PLACES[controller].folder, Path(group_of(child.box.worker_pid, controller)).name)


def groups_of(zygote: int) -> list[Path]:
    return [path for place in PLACES.values() for path in Path(place.folder).glob(f"capsule-*-{zygote}-*")]


async def ending(child: Forked) -> ExitStatus:
    async with asyncio.timeout(LONG):
        return await child.box.exited()


async def test_the_worker_and_what_it_starts_are_in_it_and_the_box_is_not(zygote: Zygote) -> None:
    code = "import os, subprocess; report([os.getpid(), subprocess.Popen(['sleep', '1000']).pid]); " + WAIT
    async with forked(zygote, code) as child:
        pids = await child.report()
        for controller in (MEMORY, PIDS):
            own, names = group_of(os.getpid(), controller), {group_of(pid, controller) for pid in pids}
            assert names == {f"{above(controller)}/{(await folder_of(child, controller)).name}"}
            assert group_of(child.box.pid, controller) == own


async def test_two_boxes_are_in_two(zygote: Zygote) -> None:
    async with forked(zygote, WAIT) as one, forked(zygote, WAIT) as two:
        assert await folder_of(one) != await folder_of(two)


async def test_memory_that_no_process_maps_is_bounded(zygote: Zygote) -> None:
    async with forked(zygote, SOCKETS) as child:
        child.box.limit(memory_bytes=64 * MIB)
        ended = await ending(child)
        assert (ended.signal, ended.exceeded) == (signal.SIGKILL, "memory")
        assert not await child.out.read()


async def test_without_a_limit_it_is_not(zygote: Zygote) -> None:
    assert await told(zygote, SOCKETS) == "held"


async def test_a_child_that_is_killed_for_its_memory_takes_the_session_with_it(zygote: Zygote) -> None:
    code = "import os\nif os.fork() == 0: kept = os.urandom(200 * 2**20)\nelse: " + WAIT
    async with forked(zygote, code) as child:
        child.box.limit(memory_bytes=64 * MIB)
        assert (await ending(child)).exceeded == "memory"


def test_that_memory_has_run_out_is_known_also_when_it_is_free_again() -> None:
    """As when the box looks only after one was killed that held it all."""
    group = Group([PLACES[MEMORY]], f"capsule-test-{os.getpid()}")
    group.make()
    try:
        group.watch(poll := select.poll())
        assert group.limit(64 * MIB, None)
        code = "import os, sys; os.read(0, 1); os.urandom(200 * 2**20)"
        with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) as process:
            Path(PLACES[MEMORY].folder, f"capsule-test-{os.getpid()}", "cgroup.procs").write_text(str(process.pid))
            assert not group.has_run_out()
            process.communicate(b".")
        assert process.returncode == -signal.SIGKILL
        assert poll.poll(0)
        assert group.has_run_out()
    finally:
        assert group.remove()


def test_files_that_are_cached_up_to_the_limit_are_no_want_of_memory(tmp_path: Path) -> None:
    """The system takes them away before it says that there is no more."""
    group = Group([PLACES[MEMORY]], f"capsule-test-{os.getpid()}")
    group.make()
    try:
        group.watch(select.poll())
        assert group.limit(64 * MIB, None)
        command = [sys.executable, "-c", WRITTEN, str(tmp_path / "file")]
        with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
            Path(PLACES[MEMORY].folder, f"capsule-test-{os.getpid()}", "cgroup.procs").write_text(str(process.pid))
            assert process.stdin is not None
            process.stdin.write(b".")
            process.stdin.close()
            while process.poll() is None:
                assert not group.has_run_out()
        assert process.returncode == 0
    finally:
        assert group.remove()


@pytest.mark.skipif(MEMORY in PLACES and PLACES[MEMORY].version != 1, reason="version 2 tells each group its own")
def test_what_follows_an_alarm_is_rehearsed_when_there_is_a_limit() -> None:
    """So that a box needs no memory for it when there is none."""
    group = Group([PLACES[MEMORY]], f"capsule-test-{os.getpid()}")
    group.make()
    try:
        group.watch(poll := select.poll())
        assert not poll.poll(0)
        assert group.limit(64 * MIB, None)
        assert poll.poll(0)
        assert not group.has_run_out()
        assert not poll.poll(0)
    finally:
        group.remove()


@pytest.mark.skipif(MEMORY in PLACES and PLACES[MEMORY].version != 1, reason="version 2 tells each group its own")
def test_that_others_have_no_memory_left_is_heard_once_where_there_is_no_limit() -> None:
    """The system tells it to all below: a box that did not take that in would be awake for ever."""
    group = Group([PLACES[MEMORY]], f"capsule-test-{os.getpid()}")
    group.make()
    try:
        alarm = group.watch(poll := select.poll())
        os.eventfd_write(alarm, 1)
        assert poll.poll(0)
        assert not group.has_run_out()
        assert not poll.poll(0)
    finally:
        assert group.remove()


def test_that_one_which_is_empty_was_swept_is_no_matter() -> None:
    """Its worker may have ended, and the box have yet to look, when another zygote sweeps."""
    group = Group([PLACES[MEMORY]], f"capsule-test-{os.getpid()}")
    group.make()
    group.watch(select.poll())
    assert group.limit(64 * MIB, None)
    Path(PLACES[MEMORY].folder, f"capsule-test-{os.getpid()}").rmdir()
    assert not group.has_run_out()
    assert group.remove()


async def test_what_is_held_when_the_limit_comes_counts(zygote: Zygote) -> None:
    async with forked(zygote, "import os; kept = os.urandom(200 * 2**20); report(1); " + WAIT) as child:
        await child.report()
        child.box.limit(memory_bytes=64 * MIB)
        assert (await ending(child)).exceeded == "memory"


async def test_memory_within_the_limit_can_be_had(zygote: Zygote) -> None:
    code = "import sys; sys.stdin = None\nimport os; os.read(page, 1); kept = os.urandom(50 * 2**20); report(len(kept))"
    async with forked(zygote, code) as child:
        child.box.limit(memory_bytes=100 * MIB)
        os.write(child.page, b".")
        assert await child.report() == 50 * MIB


async def test_threads_are_bounded_as_processes_are(zygote: Zygote) -> None:
    assert await told(zygote, THREADS) <= 256


async def test_a_session_that_is_allowed_more_processes_gets_them(zygote: Zygote) -> None:
    async with forked(zygote, "import os; os.read(page, 1)\n" + THREADS) as child:
        child.box.limit(max_processes=1000)
        most = await folder_of(child, PIDS) / "pids.max"
        async with asyncio.timeout(LONG):
            while most.read_text().strip() != "1000":
                await asyncio.sleep(0.001)
        os.write(child.page, b".")
        assert await child.report() == 400


async def test_it_goes_with_its_box(zygote: Zygote) -> None:
    async with forked(zygote, WAIT) as child:
        folders = [await folder_of(child, controller) for controller in (MEMORY, PIDS)]
        assert all(folder.is_dir() for folder in folders)
        await child.end()
        assert not any(folder.exists() for folder in folders)


async def test_that_of_a_box_which_was_killed_goes_too(zygote: Zygote) -> None:
    async with forked(zygote, "import subprocess; subprocess.Popen(['sleep', '1000']); report(1); " + WAIT) as child:
        await child.report()
        folder = await folder_of(child)
        watch = Watch(*map(int, (folder / "cgroup.procs").read_text().split()))
        os.kill(child.box.pid, signal.SIGKILL)
        await watch.ended()
        await told(zygote, "report(1)")  # it has seen all that ended before this was asked
        assert not folder.exists()


async def test_a_zygote_that_ends_leaves_none_behind() -> None:
    async with running_zygote(sandbox=SANDBOX) as zygote:
        await told(zygote, "report(1)")
        assert groups_of(zygote.pid)
    assert not groups_of(zygote.pid)


async def test_the_next_zygote_sweeps_after_one_that_was_killed_together_with_its_node() -> None:
    code = "from capsule_kernels.sandbox import cgroups, groups; groups.Groups(cgroups.discover().places).prepare()"
    process = subprocess.Popen([sys.executable, "-c", code])
    assert process.wait() == 0
    assert groups_of(process.pid)
    async with running_zygote(sandbox=SANDBOX):
        assert not groups_of(process.pid)


async def test_nobody_takes_that_of_a_living_box_whose_zygote_was_killed() -> None:
    async with running_zygote(sandbox=SANDBOX) as killed:
        async with forked(killed, WAIT) as child:
            own = await folder_of(child)
            os.kill(killed.pid, signal.SIGKILL)
            async with asyncio.timeout(LONG):
                await killed.died.wait()
            async with running_zygote(sandbox=SANDBOX):
                assert {path.name for path in groups_of(killed.pid)} == {own.name}
            assert child.box.has_worker()
            await child.end()
        assert not groups_of(killed.pid)


async def test_a_zygote_takes_nothing_of_one_that_lives(zygote: Zygote) -> None:
    await spare_of(zygote)
    with pytest.raises(WorkerLost, match="4 descriptors"):
        await zygote.fork({"dir": "/nowhere"}, [])  # it makes one ahead before it hears of this
    before = groups_of(zygote.pid)
    assert before
    async with running_zygote(sandbox=SANDBOX):
        assert groups_of(zygote.pid) == before


async def test_a_zygote_that_ends_takes_those_of_the_box_that_it_has_ahead() -> None:
    async with running_zygote(sandbox=SANDBOX) as zygote:
        await spare_of(zygote)
        assert groups_of(zygote.pid)
    assert not groups_of(zygote.pid)


async def test_without_a_sandbox_there_is_none() -> None:
    async with running_zygote() as zygote, forked(zygote, WAIT) as child:
        for controller in (MEMORY, PIDS):
            assert group_of(child.box.worker_pid, controller) == group_of(os.getpid(), controller)
    assert not groups_of(zygote.pid)


async def test_processor_time_is_bounded_where_that_is_asked_for() -> None:
    if CPU not in PLACES:
        pytest.skip("this user can make no control group for processor time here")
    code = "import time\nend = 0\nwhile True:\n    end += 0.1\n    while time.process_time() < end: pass\n    report(1)"
    async with running_zygote(sandbox={**SANDBOX, "cpus": 0.25}) as zygote, forked(zygote, code) as child:
        folder = await folder_of(child, CPU)
        if PLACES[CPU].version == 1:
            quota, period = [int((folder / f"cpu.cfs_{what}_us").read_text()) for what in ("quota", "period")]
        else:
            quota, period = map(int, (folder / "cpu.max").read_text().split())
        assert quota / period == 0.25
        while int((folder / "cpu.stat").read_text().split("nr_throttled ")[1].split()[0]) == 0:
            await child.report()  # of a tenth of a second; beside others it may not get as much as it is allowed


@pytest.mark.parametrize(("more", "wanted"), [({}, set()), ({"cpus": 1.5}, {CPU})])
async def test_where_they_are_off_there_is_none_but_what_is_asked_for(more: dict[str, float], wanted: set[str]) -> None:
    if not wanted <= PLACES.keys():
        pytest.skip("this user can make no control group for processor time here")
    async with running_zygote(sandbox={**SANDBOX, "cgroups": "off", **more}) as zygote, forked(zygote, WAIT) as child:
        await child.box.bound()
        pid = child.box.worker_pid
        moved = {controller for controller in PLACES if group_of(pid, controller) != group_of(zygote.pid, controller)}
        if CPU in moved and PLACES[CPU].version != 1:  # one for all, which bounds nothing else
            assert ((await folder_of(child, CPU)) / "pids.max").read_text() == "max\n"
            moved &= wanted
        assert moved == wanted


POWERLESS = """
import os, sys
from capsule_kernels.sandbox import landlock, seccomp
from capsule_kernels.sandbox.errors import SandboxError
from capsule_kernels.sandbox.levels import Sandbox
if os.geteuid() == 0:
    os.setgroups([])
    os.setresuid(65_534, 65_534, 65_534)
try:
    Sandbox({"level": "landlock", **eval(sys.argv[1])})
    print("had")
except SandboxError as error:
    print(error.message, "|", error.hint)
"""


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "had"),
        ({"cgroups": "off"}, "had"),
        ({"cgroups": "required"}, "no control group for memory can be had: no group can be made in "),
        ({"cpus": 1}, "no control group for cpu can be had: no group can be made in "),
        ({"level": "none"}, "had"),
        ({"level": "none", "cgroups": "auto", "cpus": None}, "had"),
        ({"level": "none", "cgroups": "required"}, "cgroups='required' bounds nothing without a sandbox"),
        ({"level": "none", "cpus": 1.5}, "cpus=1.5 bounds nothing without a sandbox"),
    ],
)
@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user may have been given some")
def test_what_is_asked_for_and_cannot_be_had_is_refused(options: dict[str, object], said: str) -> None:
    if any(place.version != 1 for place in PLACES.values()):
        said = said.partition(":")[0]
    command = [sys.executable, "-c", POWERLESS, repr(options)]
    assert subprocess.check_output(command, text=True).startswith(said)


UNIFIED = """
import os, sys
from capsule_kernels.sandbox.cgroups import Place
from capsule_kernels.sandbox.groups import Group
group = Group([Place("none", sys.argv[1], 2)], f"capsule-test-{os.getpid()}")
group.make()
read, write = os.pipe()
pid = group.fork()
if pid == 0:
    group.join()
    with open("/proc/thread-self/cgroup") as file:
        line = next(line for line in file if line.startswith("0::"))
    os.write(write, f"{os.getpid()} 1 {line}".encode())
    os._exit(0)
os.waitpid(pid, 0)
told, _, line = os.read(read, 1000).decode().split()
print(int(told) == pid, line.endswith(f"/capsule-test-{os.getpid()}"), group.remove())
print(group.remove(), [name for name in os.listdir(sys.argv[1]) if name == f"capsule-test-{os.getpid()}"])
"""


def unified() -> str:
    """Where this user can make groups of version 2, be it without controllers."""
    places = [place.folder for place in PLACES.values() if place.version != 1]
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    folders = places + [line.split()[4] for line in lines if line.partition(" - ")[2].startswith("cgroup2 ")]
    return next((folder for folder in folders if os.access(folder, os.W_OK)), "")


@pytest.mark.skipif(not unified(), reason="no hierarchy of version 2 can be written here")
def test_with_version_2_the_worker_is_in_its_group_from_its_first_moment() -> None:
    done = subprocess.run([sys.executable, "-c", UNIFIED, unified()], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines() == ["True True True", "True []"], done.stderr
