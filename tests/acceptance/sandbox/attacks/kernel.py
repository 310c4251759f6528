"""Attacks on the kernel: calls that no session needs, by their numbers, in every way that code can make them."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import signal
import struct
import subprocess
import termios
from base64 import b64decode
from collections.abc import Callable
from typing import Any

from tests.acceptance.sandbox.attacks.attack import EVERY_WAY, Collection
from tests.acceptance.sandbox.attacks.toolbox import CALLS, Missing, Prey, any_of, call, done, each, raw

collection = attack = Collection()

NEW = {
    "mount": 0x00020000,
    "cgroup": 0x02000000,
    "uts": 0x04000000,
    "ipc": 0x08000000,
    "pid": 0x20000000,
    "net": 0x40000000,
    "time": 0x00000080,
}
NEW_USER = 0x10000000
MS_BIND, MS_REC, MNT_DETACH = 4096, 16384, 2


def reached(attempt: Callable[[], Any], *behind: int) -> str | None:
    """That the kernel looked at what was asked, which it does only for who may ask: `behind` are the errors of that."""
    try:
        answer = attempt()
    except OSError as error:
        if error.errno in behind:
            return f"may ask: {errno.errorcode[error.errno]}"
        raise
    return f"answered {answer}"


@attack(ways=("child", "program"))
def make_a_user_namespace(prey: Prey) -> str | None:
    call("unshare", NEW_USER)
    return "made"


@attack(ways=("child", "program"))
def make_a_user_namespace_with_others(prey: Prey) -> str | None:
    """Whoever has one has all capabilities in it, and reaches much more of the kernel."""
    return each(NEW, lambda flag: done(call, "unshare", NEW_USER | flag))


@attack(control="root", ways=("child", "program"))
def make_other_namespaces(prey: Prey) -> str | None:
    return each(NEW, lambda flag: done(call, "unshare", flag))


@attack(ways=EVERY_WAY)
def take_what_asynchronous_requests_the_machine_has(prey: Prey) -> str | None:
    """They are counted for all users together: who takes them takes them from every data base."""
    context = ctypes.c_ulong()
    call("io_setup", 100, ctypes.byref(context))
    call("io_destroy", ctypes.c_ulong(context.value))
    return "took 100"


@attack(ways=EVERY_WAY)
def start_a_process_in_a_user_namespace(prey: Prey) -> str | None:
    return born(lambda: call("clone", NEW_USER | int(signal.SIGCHLD), 0, 0, 0, 0))


@attack(ways=EVERY_WAY)
def start_a_process_with_the_newer_call(prey: Prey) -> str | None:
    """Its flags are in memory, where no filter of calls can look."""
    arguments = ctypes.create_string_buffer(struct.pack("8Q", NEW_USER, 0, 0, 0, int(signal.SIGCHLD), 0, 0, 0))
    return born(lambda: call("clone3", arguments, 64))


def born(make: Callable[[], int]) -> str:
    """That a process has been made, which ends at once."""
    pid = make()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return "made"


@attack(control="root", ways=("child", "program"))
def enter_the_namespaces_of_others(prey: Prey) -> str | None:
    def enter(kind: str, pid: int) -> str:
        there = os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY)
        call("setns", there, 0)
        return "entered"

    pids = {"node": prey.node, "parent": os.getppid(), "1": 1, "stranger": prey.victim}
    tries = {f"{kind} of {who}": (kind, pid) for kind in ("net", "ipc", "uts", "pid") for who, pid in pids.items()}
    return each(tries, lambda given: enter(*given))


@attack(control="root", ways=("child", "program"))
def enter_the_namespaces_of_a_process(prey: Prey) -> str | None:
    there = os.pidfd_open(prey.victim)
    call("setns", there, NEW["net"] | NEW["ipc"])
    return "entered"


@attack(control="root", ways=("child", "program"))
def mount_something(prey: Prey) -> str | None:
    os.makedirs("there", exist_ok=True)
    here = os.getcwd().encode()

    def mounted(source: bytes, kind: bytes, flags: int) -> str:
        call("mount", source, here + b"/there", kind, flags, 0)
        call("umount2", here + b"/there", MNT_DETACH)
        return "mounted"

    return any_of(
        {
            "tmpfs": lambda: mounted(b"none", b"tmpfs", 0),
            "proc": lambda: mounted(b"none", b"proc", 0),
            "bind": lambda: mounted(prey.outside.encode(), b"none", MS_BIND),
            "everything": lambda: mounted(b"/", b"none", MS_BIND | MS_REC),
        }
    )


@attack(control="root", ways=("child", "program"))
def mount_with_the_newer_calls(prey: Prey) -> str | None:
    return any_of(
        {
            "fsopen": lambda: f"descriptor {call('fsopen', b'tmpfs', 0)}",
            "open_tree": lambda: f"descriptor {call('open_tree', -100, prey.outside.encode(), 1)}",
            "mount_setattr": lambda: reached(lambda: call("mount_setattr", -100, b"/", 0, bytes(32), 32)),
            "move_mount": lambda: reached(lambda: call("move_mount", -1, b"", -1, b"", 0), errno.ENOENT, errno.EBADF),
        }
    )


@attack(control="root", ways=("child",))
def uncover_what_is_hidden(prey: Prey) -> str | None:
    """To unmount what covers it, or to see the tree from another root; asked for where nothing is mounted."""
    os.makedirs("bare", exist_ok=True)
    here = os.getcwd().encode()
    return any_of(
        {
            "unmount": lambda: reached(lambda: call("umount2", here + b"/bare", MNT_DETACH), errno.EINVAL),
            "pivot": lambda: reached(lambda: call("pivot_root", here + b"/bare", here + b"/bare"), errno.EINVAL),
        }
    )


@attack(control="root", ways=("child", "program"))
def change_its_root(prey: Prey) -> str | None:
    os.makedirs("bare", exist_ok=True)
    os.chroot("bare")
    return "changed"


@attack(ways=EVERY_WAY)
def queue_calls_in_a_ring(prey: Prey) -> str | None:
    """What is queued there is seen by no filter of calls."""
    return f"descriptor {call('io_uring_setup', 4, ctypes.create_string_buffer(120))}"


@attack(control="root", ways=EVERY_WAY)
def load_a_program_into_the_kernel(prey: Prey) -> str | None:
    create_map = struct.pack("IIII", 2, 4, 8, 1).ljust(128, b"\0")
    return f"descriptor {call('bpf', 0, ctypes.create_string_buffer(create_map, 128), 128)}"


@attack(control="root", ways=EVERY_WAY)
def measure_others(prey: Prey) -> str | None:
    """Performance counters tell of the kernel, and of what else runs."""
    wanted = struct.pack("IIQQ", 1, 128, 0, 0).ljust(128, b"\0")
    return f"descriptor {call('perf_event_open', ctypes.create_string_buffer(wanted, 128), prey.victim, -1, -1, 0)}"


@attack(ways=EVERY_WAY)
def handle_its_own_page_faults(prey: Prey) -> str | None:
    """Which holds the kernel in the midst of a call, for as long as it likes."""
    return any_of({"user": lambda: f"descriptor {call('userfaultfd', os.O_CLOEXEC | 1)}"})


@attack(ways=EVERY_WAY)
def keep_keys_in_the_kernel(prey: Prey) -> str | None:
    """Keyrings are shared by all processes of a user, whatever their namespaces."""
    return any_of(
        {
            "add": lambda: f"key {call('add_key', b'user', b'capsule', b'x', 1, -2)}",
            "look": lambda: f"keyring {call('keyctl', 0, -4, 1)}",
            "request": lambda: reached(lambda: call("request_key", b"user", b"capsule-none", 0, 0), errno.ENOKEY),
        }
    )


@attack(control="root", ways=EVERY_WAY)
def load_a_module(prey: Prey) -> str | None:
    return any_of(
        {
            "init": lambda: reached(lambda: call("init_module", b"", 0, b""), errno.ENOEXEC),
            "delete": lambda: reached(lambda: call("delete_module", b"capsule_none", 0), errno.ENOENT),
        }
    )


@attack(control="root", ways=EVERY_WAY)
def start_another_kernel(prey: Prey) -> str | None:
    """Asked with flags, and a magic number, that do not exist."""
    return any_of(
        {
            "kexec": lambda: reached(lambda: call("kexec_load", 0, 0, 0, 1 << 20), errno.EINVAL, errno.EBUSY),
            "reboot": lambda: reached(lambda: call("reboot", 0, 0, 0, 0), errno.EINVAL),
        }
    )


@attack(control="root", ways=EVERY_WAY)
def read_the_kernels_messages(prey: Prey) -> str | None:
    return f"{call('syslog', 3, ctypes.create_string_buffer(100), 100)} bytes"


@attack(control="root", ways=EVERY_WAY)
def rule_the_machine(prey: Prey) -> str | None:
    """Its name, its swap, its ports, its accounts: each asked for so that nothing comes of it."""
    name = os.uname().nodename.encode()
    return any_of(
        {
            "name": lambda: reached(lambda: call("sethostname", name, len(name))),
            "swap": lambda: reached(lambda: call("swapoff", b"/dev/capsule-none"), errno.ENOENT, errno.EINVAL),
            "accounts": lambda: reached(lambda: call("acct", b"/dev/capsule-none"), errno.ENOENT),
            "ports": lambda: reached(lambda: call("iopl", 9), errno.EINVAL),
            "files": lambda: f"descriptor {call('fanotify_init', 0, 0)}",
        }
    )


@attack()
def lay_out_memory_as_it_likes(prey: Prey) -> str | None:
    """Without random addresses, and with segments of the processor's, what is broken breaks more easily."""

    def fixed() -> str:
        before = call("personality", 0xFFFFFFFF)
        call("personality", before | 0x0040000)
        call("personality", before)
        return "no random addresses"

    return any_of({"personality": fixed, "segments": lambda: reached(lambda: call("modify_ldt", 0, bytes(16), 16))})


@attack(ways=EVERY_WAY)
def use_memory_of_system_v(prey: Prey) -> str | None:
    """Shared memory of whoever has made it, by a number."""
    address = call("shmat", call("shmget", prey.shm, 4096, 0), 0, 0o10000)
    return prey.find(ctypes.string_at(address, 64))


@attack(ways=EVERY_WAY)
def use_queues_of_system_v(prey: Prey) -> str | None:
    text = ctypes.create_string_buffer(128)
    call("msgrcv", call("msgget", prey.msg, 0), text, 100, 0, 0o4000)
    return prey.find(text.raw)


@attack()
def use_queues_of_posix(prey: Prey) -> str | None:
    """They have names that are no paths."""
    there = call("mq_open", prey.mq.encode(), os.O_RDONLY | os.O_NONBLOCK, 0, 0)
    text = ctypes.create_string_buffer(8192)
    call("mq_timedreceive", there, text, 8192, 0, 0)
    return prey.find(text.raw)


@attack()
def type_into_a_terminal(prey: Prey) -> str | None:
    """What is typed in there, somebody else's shell runs."""
    there = os.open(prey.tty, os.O_RDWR | os.O_NOCTTY)
    return any_of({"open": lambda: "opened", "type": lambda: fcntl.ioctl(there, termios.TIOCSTI, b"x")})


@attack(ways=("child", "program"))
def type_into_a_terminal_of_its_own(prey: Prey) -> str | None:
    """The one that a process starts with could be anybody's; here it makes one, if it can."""
    os.setsid()
    _, inner = os.openpty()
    fcntl.ioctl(inner, termios.TIOCSCTTY, 0)
    fcntl.ioctl(inner, termios.TIOCSTI, b"x")
    return "typed"


def shout(code: bytes, *registers: int) -> int:
    """Run machine code: system calls by another door than the C library's."""
    memory = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    memory.write(code)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    kind = ctypes.CFUNCTYPE(ctypes.c_long, *[ctypes.c_long] * len(registers))
    return int(kind(address)(*registers))


# push rbx; mov eax, edi; mov ebx, esi; xor ecx, ecx; xor edx, edx; int 0x80; movsxd rax, eax; pop rbx; ret
OLD_DOOR = bytes.fromhex("53 89f8 89f3 31c9 31d2 cd80 4863c0 5b c3")
OLD_UNSHARE, OLD_GETPID = 310, 20


@attack(ways=("child", "program"))
def call_as_a_program_of_32_bits(prey: Prey) -> str | None:
    """The same calls have other numbers there, which mean other calls here. 310 is `unshare`."""
    if os.uname().machine != "x86_64":
        raise Missing("there is one door only")
    answer = shout(OLD_DOOR, OLD_UNSHARE, NEW_USER)
    if answer < 0:
        raise OSError(-answer, os.strerror(-answer))
    return "made a user namespace"


@attack(ways=("child", "program"))
def call_any_old_call(prey: Prey) -> str | None:
    """`getpid` is harmless; whoever may call it through the old door may call all."""
    if os.uname().machine != "x86_64":
        raise Missing("there is one door only")
    answer = shout(OLD_DOOR, OLD_GETPID, 0)
    if answer < 0:
        raise OSError(-answer, os.strerror(-answer))
    return f"I am {answer}"


@attack(control="never", why="few kernels are built with this door")
def call_with_the_numbers_of_x32(prey: Prey) -> str | None:
    if os.uname().machine != "x86_64":
        raise Missing("there is one door only")
    try:
        raw(0x40000000 + CALLS["unshare"][0], NEW_USER)
    except OSError as error:
        if error.errno == errno.ENOSYS:
            raise Missing("this kernel knows no x32") from None
        raise
    return "made a user namespace"


@attack()
def run_a_program_of_its_own(prey: Prey) -> str | None:
    """One in machine code, which no interpreter and no library stands before."""
    if not prey.program:
        raise Missing("there is no compiler")
    with open("program", "wb") as file:
        file.write(b64decode(prey.program))
    os.chmod("program", 0o700)
    return subprocess.run(["./program"], capture_output=True, text=True, check=False).stdout
