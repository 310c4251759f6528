"""Attacks on other processes: the node, the zygote, boxes, the neighbour, a stranger; and on the limits of its own."""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import os
import re
import resource
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from capsule_protocol.errors import CapsuleError
from tests.acceptance.sandbox.attacks.attack import EVERY_WAY, Collection
from tests.acceptance.sandbox.attacks.siege import Attacker
from tests.acceptance.sandbox.attacks.toolbox import Prey, any_of, call, done, each

collection = attack = Collection()

HARMLESS = signal.SIGURG
"""Nobody notices it who does not listen for it; whether it may be sent is what counts."""
SEIZE = 0x4206
CLONE_PARENT = 0x8000
ONE_PROCESS = 1
MADV_COLD = 20
F_SETSIG = 10


@attack(ways=EVERY_WAY)
def send_a_signal(prey: Prey) -> str | None:
    return each(prey.processes, lambda pid: done(os.kill, pid, HARMLESS))


@attack()
def send_a_signal_to_its_parent(prey: Prey) -> str | None:
    os.kill(os.getppid(), HARMLESS)
    return "sent"


@attack()
def send_a_signal_to_a_thread(prey: Prey) -> str | None:
    return each(prey.processes, lambda pid: call("tgkill", pid, pid, int(HARMLESS)) or "sent")


@attack()
def send_a_signal_to_groups(prey: Prey) -> str | None:
    """A process group is found by its number alone."""
    return any_of(
        {
            "group": lambda: done(os.killpg, prey.zygote, HARMLESS),
            "box": lambda: done(os.killpg, prey.neighbour["worker"], HARMLESS),
        }
    )


@attack(ways=EVERY_WAY)
def send_a_signal_by_a_descriptor(prey: Prey) -> str | None:
    return each(prey.processes, lambda pid: done(signal.pidfd_send_signal, os.pidfd_open(pid), HARMLESS))


@attack()
def send_a_signal_with_a_value(prey: Prey) -> str | None:
    told = ctypes.create_string_buffer(struct.pack("iii", int(HARMLESS), 0, -2), 128)
    return each(prey.processes, lambda pid: call("rt_sigqueueinfo", pid, int(HARMLESS), told) or "sent")


async def signals_of_the_stranger(attacker: Attacker) -> str | None:
    """What has reached the process that listens for it."""
    await asyncio.sleep(0.1)  # nothing tells of a signal that does not come
    count = attacker.siege.prey.signals()
    return f"{count} signals came" if count else None


@attack(after=signals_of_the_stranger)
def have_the_system_send_a_signal(prey: Prey) -> str | None:
    """A descriptor can be told whom to signal when something comes."""
    here, there = socket.socketpair()
    fcntl.fcntl(here, F_SETSIG, int(signal.SIGUSR2))
    fcntl.fcntl(here, fcntl.F_SETOWN, prey.victim)
    fcntl.fcntl(here, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
    there.send(b"x")
    return None


@attack(residual=("landlock",), risk="without namespaces there is one /proc, and programs need it")
def see_other_processes(prey: Prey) -> str | None:
    """Their numbers, and the words that started them; those of its own box tell it nothing."""
    strangers = {name: pid for name, pid in prey.processes.items() if name != "own box"}
    others = [name for name in os.listdir("/proc") if name.isdigit() and int(name) in strangers.values()]
    return any_of(
        {
            "listed": lambda: " ".join(others),
            "command": lambda: each(strangers, lambda pid: read(f"/proc/{pid}/cmdline")[:20]),
            "status": lambda: each(strangers, lambda pid: read(f"/proc/{pid}/stat")[:20]),
        }
    )


def read(path: str) -> str:
    """What a file of /proc tells."""
    with open(path, "rb") as file:
        return file.read(100_000).decode(errors="replace")


@attack(ways=EVERY_WAY)
def read_the_environment_of_the_node(prey: Prey) -> str | None:
    return prey.find(read(f"/proc/{prey.node}/environ"))


@attack()
def read_the_environment_of_others(prey: Prey) -> str | None:
    pids = {**prey.processes, "parent": os.getppid()}
    return each(pids, lambda pid: read(f"/proc/{pid}/environ")[:20])


@attack(control="never", why="no worker has ever held the node's environment, sandboxed or not")
def find_the_environment_of_the_node_in_its_own_memory(prey: Prey) -> str | None:
    """A variable that is removed stays where the kernel has put it."""
    wanted = re.compile(bytes(reversed(b"=DROWSSAP_ESABATAD")) + rb"[0-9a-f]{24}")
    if wanted.search("\0".join(f"{name}={value}" for name, value in os.environ.items()).encode()):
        return "in os.environ"
    if wanted.search(read("/proc/self/environ").encode()):
        return "in /proc/self/environ"
    with open("/proc/self/maps") as maps, open("/proc/self/mem", "rb", 0) as memory:
        for line in maps:
            words = line.split()
            start, end = (int(word, 16) for word in words[0].split("-"))
            if words[1].startswith("rw") and end - start < 2**28:
                try:
                    memory.seek(start)
                    data = memory.read(end - start)
                except (OSError, ValueError):
                    continue
                if wanted.search(data):
                    return f"in {words[-1]}"
    return None


def vectors(here: Any, there: int, size: int) -> tuple[Any, Any]:
    """The two arguments of the calls that copy from one process to another."""
    mine = ctypes.create_string_buffer(struct.pack("PN", ctypes.addressof(here), size))
    return mine, ctypes.create_string_buffer(struct.pack("PN", there, size))


@attack(ways=EVERY_WAY)
def read_the_memory_of_the_neighbour(prey: Prey) -> str | None:
    here = ctypes.create_string_buffer(64)
    mine, theirs = vectors(here, prey.neighbour["address"], prey.neighbour["size"])
    call("process_vm_readv", prey.neighbour["worker"], mine, 1, theirs, 1, 0)
    return prey.find(here.raw)


@attack()
def write_the_memory_of_the_neighbour(prey: Prey) -> str | None:
    """The same bytes that are there."""
    here = ctypes.create_string_buffer(prey.secret.encode())
    mine, theirs = vectors(here, prey.neighbour["address"], prey.neighbour["size"])
    return f"wrote {call('process_vm_writev', prey.neighbour['worker'], mine, 1, theirs, 1, 0)}"


@attack()
def open_the_memory_of_the_neighbour(prey: Prey) -> str | None:
    with open(f"/proc/{prey.neighbour['worker']}/mem", "rb", 0) as memory:
        memory.seek(prey.neighbour["address"])
        return prey.find(memory.read(prey.neighbour["size"]))


@attack()
def read_what_the_system_knows_of_others(prey: Prey) -> str | None:
    """Where their memory is, what they have open, where they are."""
    names = ["maps", "auxv", "smaps", "io", "personality", "stack", "syscall", "pagemap", "timers"]
    paths = [f"/proc/{pid}/{name}" for pid in prey.processes.values() for name in names]
    return each(paths, lambda path: read(path)[:20])


@attack()
def take_what_others_have_open(prey: Prey) -> str | None:
    return each(prey.processes, lambda pid: os.listdir(f"/proc/{pid}/fd") and os.readlink(f"/proc/{pid}/fd/1"))


@attack(ways=EVERY_WAY)
def copy_a_descriptor_of_the_node(prey: Prey) -> str | None:
    return each(prey.workers, lambda pid: f"descriptor {call('pidfd_getfd', os.pidfd_open(pid), 1, 0)}")


@attack(ways=("child", "program"))
def trace_a_process(prey: Prey) -> str | None:
    """Without stopping it; it is let go when the tracer ends."""
    return each(prey.workers, lambda pid: call("ptrace", SEIZE, pid, 0, 0) or "traced")


@attack()
def set_the_limits_of_others(prey: Prey) -> str | None:
    """Without a descriptor to be had the node could serve nobody; here it is the size of cores."""
    limits = ctypes.create_string_buffer(struct.pack("QQ", 0, 2**64 - 1))

    def limit(pid: int) -> str:
        before = ctypes.create_string_buffer(16)
        call("prlimit64", pid, int(resource.RLIMIT_CORE), 0, before)
        struct.pack_into("QQ", limits, 0, 0, struct.unpack("QQ", before.raw)[1])
        call("prlimit64", pid, int(resource.RLIMIT_CORE), limits, 0)
        return "set"

    return each(prey.processes, limit)


@attack()
def set_the_priority_of_others(prey: Prey) -> str | None:
    """To what it is."""
    return each(
        prey.processes,
        lambda pid: done(os.setpriority, os.PRIO_PROCESS, pid, os.getpriority(os.PRIO_PROCESS, pid)),
    )


@attack()
def set_the_processors_of_others(prey: Prey) -> str | None:
    """To those that it has."""
    return each(prey.processes, lambda pid: done(os.sched_setaffinity, pid, os.sched_getaffinity(pid)))


@attack()
def set_the_class_of_others(prey: Prey) -> str | None:
    """A process that runs only when nobody else does is as good as stopped."""
    return any_of(
        {
            "scheduler": lambda: done(os.sched_setscheduler, prey.victim, os.SCHED_BATCH, os.sched_param(0)),
            "disk": lambda: call("ioprio_set", ONE_PROCESS, prey.victim, 2 << 13 | 4) or "set",
        }
    )


@attack()
def act_on_the_memory_of_others(prey: Prey) -> str | None:
    here = ctypes.create_string_buffer(struct.pack("PN", 0, 0))
    nodes = ctypes.create_string_buffer(struct.pack("Q", 1))

    def advise(pid: int) -> str:
        call("process_madvise", os.pidfd_open(pid), here, 1, MADV_COLD, 0)
        return "advised"

    return any_of(
        {
            "advise": lambda: each(prey.processes, advise),
            "migrate": lambda: each(prey.processes, lambda pid: done(call, "migrate_pages", pid, 2, nodes, nodes)),
            "move": lambda: each(prey.processes, lambda pid: done(call, "move_pages", pid, 0, 0, 0, 0, 0)),
        }
    )


@attack()
def compare_with_others(prey: Prey) -> str | None:
    """Which descriptors two processes share."""
    return each(prey.processes, lambda pid: f"order {call('kcmp', pid, prey.victim, 1, 0, 0)}")


@attack(control="root")
def take_the_processor_before_others(prey: Prey) -> str | None:
    def fifo() -> str:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        return "a class that comes first"

    return any_of(
        {
            "class": fifo,
            "nice": lambda: os.nice(-1) < 20 and "a better priority",
            "disk": lambda: call("ioprio_set", ONE_PROCESS, 0, 1 << 13) or "a disk of its own",
        }
    )


@attack(control="root")
def leave_its_control_groups(prey: Prey) -> str | None:
    places = ["memory/tasks", "pids/tasks", "cpu/tasks", "unified/cgroup.procs", "cgroup.procs"]

    def leave(path: str) -> str:
        group = os.open(path, os.O_WRONLY)  # `open` would make a file where there is no such group
        os.write(group, str(os.getpid()).encode())
        os.close(group)
        return "left"

    return each(places, lambda place: leave(f"/sys/fs/cgroup/{place}"))


def own_groups() -> list[str]:
    """The folders of the groups that it is in, and of those above them."""
    unified = "unified" if os.path.isdir("/sys/fs/cgroup/unified") else ""  # beside version 1, or alone
    folders = []
    for line in read("/proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        folder = os.path.normpath(f"/sys/fs/cgroup/{controllers.removeprefix('name=') or unified}{path}")
        folders += [folder, os.path.dirname(folder)]
    return folders


@attack(control="root", ways=("main", "child"))
def loosen_its_control_groups(prey: Prey) -> str | None:
    """Opened for writing, and not written to."""
    limits = ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.oom_control", "memory.force_empty"]
    limits += ["memory.max", "memory.swap.max", "memory.oom.group", "pids.max", "cpu.cfs_quota_us", "cpu.max"]
    limits += [
        "tasks",
        "cgroup.procs",
        "cgroup.threads",
        "cgroup.subtree_control",
        "cgroup.event_control",
        "cgroup.kill",
    ]
    paths = [f"{folder}/{limit}" for folder in own_groups() for limit in limits]
    return each(paths, lambda path: os.open(path, os.O_WRONLY))


@attack(control="root", ways=("main", "child"))
def make_a_control_group_below_its_own(prey: Prey) -> str | None:
    def make(folder: str) -> str:
        os.mkdir(f"{folder}/below")
        os.rmdir(f"{folder}/below")
        return "made"

    return each(own_groups(), make)


@attack(control="root")
def loosen_the_control_groups_of_a_neighbour(prey: Prey) -> str | None:
    """Or end what is in them: found below those of the node."""
    found = [f"{folder}/{name}" for folder in own_groups() for name in os.listdir(folder)]
    groups = [path for path in found if os.path.basename(path).startswith("capsule-")]
    knobs = ["memory.limit_in_bytes", "memory.max", "pids.max", "tasks", "cgroup.procs", "cgroup.kill"]
    return each([f"{group}/{knob}" for group in groups for knob in knobs], lambda path: os.open(path, os.O_WRONLY))


@attack(control="root")
def hold_capabilities(prey: Prey) -> str | None:
    found = re.findall(r"Cap(Eff|Prm|Inh|Amb):\s*([0-9a-f]+)", read("/proc/self/status"))
    return " ".join(f"{name} {value}" for name, value in found if int(value, 16)) or None


@attack(
    control="root",
    ways=("main", "program"),
    residual=("landlock/ordinary",),
    risk="an ordinary user cannot give them up; no program brings any all the same (no_new_privs)",
)
def have_programs_that_could_bring_capabilities(prey: Prey) -> str | None:
    (bound,) = re.findall(r"CapBnd:\s*([0-9a-f]+)", read("/proc/self/status"))
    return bound if int(bound, 16) else None


@attack(control="root", ways=("child",))
def become_another_user(prey: Prey) -> str | None:
    """Any that it is not; inside a user namespace that maps one user there is no other."""
    before = os.getresuid()
    for uid in (0, 1, 1000, 65534):
        if uid not in before:
            try:
                os.setresuid(uid, uid, uid)
            except OSError as error:
                refused = error
            else:
                return f"{uid}, and was {before}"
    raise refused


@attack(control="root", ways=("child",))
def change_its_groups(prey: Prey) -> str | None:
    os.setgroups([0, 1, 42])
    return f"{os.getgroups()}"


@attack(ways=("main", "program"))
def run_a_program_that_is_roots(prey: Prey) -> str | None:
    """`su` waits for a password, as root if it can."""
    for path in ("/usr/bin/su", "/bin/su"):
        if os.path.exists(path):
            return as_root([path, "nobody", "-s", "/bin/true"])
    return None


def as_root(command: list[str]) -> str | None:
    """Whether a program becomes root, which user it was or not."""
    master, slave = os.openpty()
    process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
    os.close(slave)
    try:
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            found = re.search(r"Uid:\s*(\d+)\s+(\d+)", read(f"/proc/{process.pid}/status"))
            if found and found[2] == "0" and read(f"/proc/{process.pid}/comm").strip() == "su":
                return "runs as root"
            if process.poll() is not None:
                return "ran as root" if os.getuid() == 0 and process.returncode == 0 else None
            time.sleep(0.01)
    finally:
        process.kill()
        process.wait()
        os.close(master)
    return None


@attack(control="root")
def run_a_copy_that_is_roots(prey: Prey) -> str | None:
    if not prey.suid:
        return None
    done = subprocess.run([prey.suid, "-u"], capture_output=True, text=True, check=False)
    return "ran as root" if done.stdout.strip() == "0" else None


async def who_is_left(attacker: Attacker) -> str | None:
    """Whether a process that the code has left is there when its session is not."""
    mark = attacker.before["told"]["mark"]
    found = [process for process in psutil.process_iter(["cmdline"]) if mark in (process.info["cmdline"] or [])]
    assert found or attacker.result is None or attacker.result.verdict != "ok", "it has left nobody"
    await attacker.session.close()
    left = [process for process in found if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
    return f"left: {[process.as_dict(['pid', 'ppid', 'status', 'uids']) for process in left]}" if left else None


@attack(after=who_is_left, control="never", why="a box leaves nobody behind at any level")
def outlive_the_session(prey: Prey) -> str | None:
    """As a daemon does it: another session, another parent, no signal that would end it."""
    code = (
        "import signal, time\n[signal.signal(n, 1) for n in (1, 2, 3, 15, 17)]\nprint(1, flush=True)\ntime.sleep(1000)"
    )
    for _ in range(3):
        read_end, write_end = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.setsid()
            if os.fork():
                os._exit(0)
            os.dup2(write_end, 1)
            os.execv(sys.executable, [sys.executable, "-I", "-S", "-c", code, prey.mark])
        os.waitpid(pid, 0)
        os.close(write_end)
        os.read(read_end, 1)
    return None


@attack(after=who_is_left, control="never", why="a box leaves nobody behind at any level")
def outlive_the_session_beside_the_worker(prey: Prey) -> str | None:
    """A child of the box, by birth: the worker's sibling."""
    read_end, write_end = os.pipe()
    if call("clone", CLONE_PARENT | int(signal.SIGCHLD), 0, 0, 0, 0) == 0:
        os.setsid()
        os.dup2(write_end, 1)
        code = "import time\nprint(1, flush=True)\ntime.sleep(1000)"
        os.execv(sys.executable, [sys.executable, "-I", "-S", "-c", code, prey.mark])
    os.close(write_end)
    os.read(read_end, 1)
    return None


async def what_the_node_gives_out(attacker: Attacker) -> str | None:
    """Whether a client that asks for the session's files gets what a link there leads to."""
    told = attacker.before["told"]
    for name in ("link", "folder/open.txt", "hard", "moved/open.txt"):
        try:
            found = await attacker.session.download(name)
        except CapsuleError:
            continue
        if told["secret"].encode() in found:
            return f"{name} was given out"
    await attacker.session.close()
    kept = Path(told["outside"], "open.txt")
    return None if kept.exists() and Path(told["outside"], "folder").exists() else "what a link leads to was removed"


@attack(after=what_the_node_gives_out, control="held", why="the node follows no links of a session's, sandboxed or not")
def have_the_node_follow_links(prey: Prey) -> str | None:
    """It reads the session's files for clients, and the box removes them: as the node's user, or as root."""
    os.symlink(f"{prey.outside}/open.txt", "link")
    os.symlink(prey.outside, "folder")
    os.symlink(f"/proc/{os.getpid()}/root{prey.outside}", "moved")
    os.makedirs("deep/deeper")
    os.symlink(prey.outside, "deep/deeper/there")
    os.chmod("deep/deeper", 0o000)
    return None
