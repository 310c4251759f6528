"""The parts of the sandbox: the filter on both architectures, and that what cannot be had is refused."""

from __future__ import annotations

import errno
import json
import socket
import struct
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from capsule_kernels.sandbox import seccomp, view
from capsule_kernels.sandbox.errors import SandboxError
from capsule_kernels.sandbox.syscalls import TABLES

if TYPE_CHECKING:
    from pathlib import Path

ARCHITECTURES = sorted(TABLES)
AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
ONLY_X86 = {
    "create_module",
    "query_module",
    "uselib",
    "iopl",
    "ioperm",
    "modify_ldt",
    "chmod",
    "chown",
    "lchown",
    "inotify_init",
    "utime",
    "utimes",
    "futimesat",
}
ALLOWED, KILLED = 0x7FFF0000, 0x80000000
DENIED, ABSENT = 0x00050000 | errno.EPERM, 0x00050000 | errno.ENOSYS
READ = {"x86_64": 0, "aarch64": 63}


def verdict(program: bytes, architecture: int, number: int, *arguments: int) -> int:
    """What the kernel would make of the call: an interpreter of the few instructions that there are."""
    data = struct.pack("=IIQ6Q", number, architecture, 0, *(*arguments, 0, 0, 0, 0, 0, 0)[:6])
    lines = list(struct.iter_unpack("=HBBI", program))
    at = accumulator = 0
    while True:
        code, if_true, if_false, value = lines[at]
        at += 1
        if code == 0x06:
            return int(value)
        if code == 0x20:
            (accumulator,) = struct.unpack_from("=I", data, value)
        elif code == 0x54:
            accumulator &= value
        elif code == 0x05:
            at += value
        else:
            holds = {0x15: accumulator == value, 0x25: accumulator > value, 0x45: bool(accumulator & value)}[code]
            at += if_true if holds else if_false


@pytest.fixture(params=ARCHITECTURES)
def architecture(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def asked(architecture: str, name: str, *arguments: int, **how: bool) -> int:
    number = TABLES[architecture][name]
    return verdict(seccomp.program(architecture, **how), AUDIT[architecture], number, *arguments)


def test_all_that_is_denied_has_a_number(architecture: str) -> None:
    wanted = seccomp.DENIED | seccomp.DENIED_IN_PLAIN_VIEW | seccomp.DENIED_TO_SAME_USER | seccomp.DENIED_TO_OWNERS
    missing = wanted - TABLES[architecture].keys()
    assert missing <= (set() if architecture == "x86_64" else ONLY_X86)
    assert len(set(TABLES[architecture].values())) == len(TABLES[architecture])


def test_what_is_denied_is_denied(architecture: str) -> None:
    for name in seccomp.DENIED & TABLES[architecture].keys():
        assert asked(architecture, name) == DENIED, name
    for name in seccomp.DENIED_IN_PLAIN_VIEW & TABLES[architecture].keys():
        assert asked(architecture, name) == ALLOWED, name
        assert asked(architecture, name, plain_view=True) == DENIED, name
    for name in seccomp.DENIED_TO_OWNERS & TABLES[architecture].keys():
        assert asked(architecture, name) == ALLOWED, name
        assert asked(architecture, name, same_user=True) == ALLOWED, name
        assert asked(architecture, name, plain_view=True, same_user=True) == DENIED, name
    for name in seccomp.DENIED_TO_SAME_USER & TABLES[architecture].keys():
        assert asked(architecture, name, plain_view=True) == ALLOWED, name
        assert asked(architecture, name, same_user=True) == DENIED, name


def test_ordinary_calls_are_allowed(architecture: str) -> None:
    program = seccomp.program(architecture)
    assert verdict(program, AUDIT[architecture], READ[architecture]) == ALLOWED
    allowed = [n for n in range(424) if n not in TABLES[architecture].values()]
    assert {verdict(program, AUDIT[architecture], number) for number in allowed} == {ALLOWED}


def test_calls_of_another_architecture_end_the_process(architecture: str) -> None:
    (other,) = set(AUDIT) - {architecture}
    assert verdict(seccomp.program(architecture), AUDIT[other], READ[architecture]) == KILLED


def test_newer_calls_and_those_of_x32_are_not_there(architecture: str) -> None:
    program = seccomp.program(architecture)
    for number in (seccomp.NEWEST + 1, 0x40000000, 0x40000000 + 41, 2**32 - 1):
        assert verdict(program, AUDIT[architecture], number) == ABSENT
    assert asked(architecture, "clone3") == ABSENT


@pytest.mark.parametrize("flag", [0x20000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000])
def test_threads_and_children_may_be_made_but_no_namespaces(architecture: str, flag: int) -> None:
    thread, child = 0x003D0F00, 0x01200011
    assert asked(architecture, "clone", thread) == asked(architecture, "clone", child) == ALLOWED
    assert asked(architecture, "clone", child | flag) == DENIED


def test_only_pairs_of_connected_sockets_can_be_had(architecture: str) -> None:
    for call in ("socket", "socketpair"):
        for kind in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC):
            assert asked(architecture, call, socket.AF_UNIX, kind) == ALLOWED
        for kind in (socket.SOCK_DGRAM, socket.SOCK_RAW, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK):
            assert asked(architecture, call, socket.AF_UNIX, kind) == DENIED
        for family in {*range(64)} - {socket.AF_UNIX}:
            assert asked(architecture, call, family, socket.SOCK_STREAM) == DENIED


def test_nothing_is_sent_to_an_address(architecture: str) -> None:
    assert asked(architecture, "sendto", 3, 4096, 10, 0, 0, 0) == ALLOWED
    for address in (4096, 2**32, 2**40 + 1):
        assert asked(architecture, "sendto", 3, 4096, 10, 0, address, 16) == DENIED


@pytest.mark.parametrize(
    ("name", "own", "others"),
    [
        ("prlimit64", (0, 7), (1234, 7)),
        ("sched_setaffinity", (0, 8), (1234, 8)),
        ("setpriority", (0, 0, 5), (0, 1234, 5)),
        ("setpriority", (0, 0, 5), (2, 0, 5)),
        ("ioprio_set", (1, 0, 5), (1, 1234, 5)),
        ("ioprio_set", (1, 0, 5), (3, 0, 5)),
        ("ioctl", (0, 0x5413), (0, 0x5412)),
    ],
)
def test_nobody_else_is_held_up(architecture: str, name: str, own: tuple[int, ...], others: tuple[int, ...]) -> None:
    assert asked(architecture, name, *own) == ALLOWED
    assert asked(architecture, name, *others) == DENIED


def test_of_other_files_of_its_user_code_changes_nothing_that_landlock_does_not_know_of(architecture: str) -> None:
    """Their times by name, and their flags by a descriptor that may only be read."""
    owner = {"plain_view": True, "same_user": True}
    for path in (4096, 2**32, 2**40 + 1):
        assert asked(architecture, "utimensat", 3, path, 0, 0, **owner) == DENIED
        assert asked(architecture, "utimensat", 3, path, 0, 0, plain_view=True) == ALLOWED
        assert asked(architecture, "utimensat", 3, path, 0, 0, same_user=True) == ALLOWED
    assert asked(architecture, "utimensat", 3, 0, 0, 0, **owner) == ALLOWED  # of what it has opened
    for request in (0x40086602, 0x40087602, 0x401C5820, 0x40806685, 0x800C6613):
        assert asked(architecture, "ioctl", 3, request, **owner) == DENIED
        assert asked(architecture, "ioctl", 3, request) == ALLOWED
    assert asked(architecture, "ioctl", 3, 0x80086601, **owner) == ALLOWED  # to look at them


def test_an_unknown_architecture_is_refused() -> None:
    with pytest.raises(SandboxError, match="riscv64") as caught:
        seccomp.program("riscv64")
    assert "aarch64 and x86_64" in caught.value.hint


def test_what_is_needed_names_nothing_twice_and_never_everything(tmp_path: Path) -> None:
    found = view.needed([str(tmp_path), str(tmp_path / "below"), "/nowhere", "/"])
    assert str(tmp_path) in found
    assert not {"/", "/nowhere", str(tmp_path / "below")} & set(found)
    assert not [path for path in found for other in found if path.startswith(f"{other}/")]


TRIAL = """
import json, os, struct, sys, tempfile
from capsule_kernels.sandbox import seccomp
from capsule_kernels.sandbox.errors import SandboxError
from capsule_kernels.sandbox.levels import Sandbox
from capsule_kernels.sandbox.syscalls import numbers
from capsule_kernels.sandbox.trial import try_out
without, level = sys.argv[1:3]
line = struct.Struct("=HBBI").pack
numbers = numbers() | {{"nothing": 9999}}
seccomp.install(b"".join([line(0x20, 0, 0, 0), line(0x15, 0, 1, numbers[without]), line(6, 0, 0, 0x50000 | {error}),
                          line(6, 0, 0, 0x7fff0000)]))
try:
    with tempfile.TemporaryDirectory() as parent:
        try_out(Sandbox({{"level": level, "uid": 0}}), parent)
        print(json.dumps([None, os.listdir(parent)]))
except SandboxError as error:
    print(json.dumps([error.message, error.hint]))
"""


def tried(without: str, level: str, error: int = errno.EPERM) -> list[Any]:
    """What a process says of a level that has to do without one of the system's calls."""
    command = [sys.executable, "-c", TRIAL.format(error=error), without, level]
    done = subprocess.run(command, capture_output=True, check=True, timeout=60)
    answer: list[Any] = json.loads(done.stdout)
    return answer


@pytest.mark.parametrize("level", ["landlock", "namespaces"])
def test_a_trial_that_goes_well_leaves_nothing(level: str) -> None:
    assert tried("nothing", level) == [None, []]


@pytest.mark.parametrize(
    ("without", "level", "told"),
    [
        ("landlock_create_ruleset", "landlock", "there is no Landlock"),
        ("landlock_create_ruleset", "namespaces", "there is no Landlock"),
        ("clone", "namespaces", "namespaces cannot be made: [Errno 1] clone"),
        ("pivot_root", "namespaces", "pivot_root"),
        ("landlock_restrict_self", "landlock", "landlock_restrict_self"),
    ],
)
def test_what_the_machine_does_not_give_is_refused(without: str, level: str, told: str) -> None:
    message, hint = tried(without, level)
    assert told in message
    assert hint
