"""The filter of system calls: what code has no use for, or must not have whatever else protects.

A list of what is denied, not of what is allowed: libraries call what nobody foresaw. What is denied is what reaches
other processes or the kernel's inside (ptrace, bpf, io_uring, keys, mounts, namespaces, modules …), and every socket
but a connected pair: Landlock knows nothing of UDP, and AF_VSOCK leads out of a network namespace. Calls that are newer
than this list do not exist (ENOSYS), which programs can deal with.
"""

from __future__ import annotations

import ctypes
import errno
import socket
import struct
from typing import Final

from capsule_kernels.sandbox.errors import SandboxError
from capsule_kernels.sandbox.syscalls import ARCHITECTURE, numbers, prctl, syscall

DENIED: Final = frozenset(
    {
        *("ptrace", "process_vm_readv", "process_vm_writev", "process_madvise", "process_mrelease", "kcmp"),
        *("pidfd_getfd", "migrate_pages", "move_pages"),
        *("mount", "umount2", "pivot_root", "chroot", "open_tree", "move_mount", "fsopen", "fsconfig", "fsmount"),
        *("fspick", "mount_setattr", "open_tree_attr", "statmount", "listmount", "quotactl", "quotactl_fd"),
        *("unshare", "setns", "personality", "sethostname", "setdomainname"),
        *("io_uring_setup", "io_uring_enter", "io_uring_register", "bpf", "perf_event_open", "userfaultfd"),
        *("add_key", "request_key", "keyctl"),
        *("init_module", "finit_module", "delete_module", "create_module", "query_module"),
        *("kexec_load", "kexec_file_load", "reboot", "swapon", "swapoff", "acct", "syslog", "vhangup"),
        *("settimeofday", "clock_settime", "adjtimex", "clock_adjtime"),
        *("name_to_handle_at", "open_by_handle_at", "fanotify_init", "lookup_dcookie", "nfsservctl"),
        *("iopl", "ioperm", "modify_ldt", "uselib", "lsm_set_self_attr", "mq_open"),
        *("shmget", "shmat", "shmctl", "semget", "semop", "semctl", "semtimedop"),
        *("msgget", "msgsnd", "msgrcv", "msgctl"),
        *("connect", "bind", "listen"),
        "io_setup",  # its requests are counted for the whole machine, and one process can have all of them
        *("memfd_create", "memfd_secret"),  # memory that belongs to no process and to no file system of a bounded size
    }
)
"""Calls that fail with EPERM, whatever their arguments."""

DENIED_IN_PLAIN_VIEW: Final = frozenset(
    {
        *("setxattr", "lsetxattr", "fsetxattr", "setxattrat", "file_setattr", "inotify_add_watch"),
        *("removexattr", "lremovexattr", "fremovexattr", "removexattrat"),
    }
)
"""The same, for code that can name files outside of its sandbox: what Landlock does not keep from it there."""

DENIED_TO_SAME_USER: Final = frozenset({"inotify_init", "inotify_init1"})
"""The same, for code that runs as the node's own user: of watchers that user has few, in whatever namespace."""

DENIED_TO_OWNERS: Final = frozenset(
    {
        *("chmod", "fchmod", "fchmodat", "fchmodat2", "chown", "fchown", "lchown", "fchownat"),
        *("utime", "utimes", "futimesat"),
    }
)
"""The same, if some of those files are its user's own. `utimensat` may set the times of what the code could open."""
_OF_NETWORKS: Final = frozenset({"connect", "bind", "listen"})
_OWN_PROCESS_ONLY: Final = {
    "prlimit64": (0,),
    "sched_setaffinity": (0,),
    "sched_setattr": (0,),
    "sched_setparam": (0,),
    "sched_setscheduler": (0,),
    "setpriority": (0, 1),
}
"""The arguments that must be 0, which means the caller itself: others of its user, the node too, could be held up."""

NEWEST: Final = 469
"""The highest number that has been looked at."""
NEW_NAMESPACES: Final = 0x7E020000
"""CLONE_NEWNS, CGROUP, UTS, IPC, USER, PID, NET."""
_TTY_INPUT: Final = (0x5412, 0x541C)
"""TIOCSTI and TIOCLINUX: they type into a terminal what its shell would run."""
_OWNERS_FLAGS: Final = (0x40086602, 0x40087602, 0x401C5820, 0x40806685, 0x800C6613)
"""FS_IOC_SETFLAGS, SETVERSION, FSSETXATTR, ENABLE_VERITY and SET_ENCRYPTION_POLICY: by a descriptor that may only be
read they change what belongs to a file's owner."""
_ALL_OF_USER: Final = 3
"""IOPRIO_WHO_USER."""
_ONLY_PAIRS: Final = (socket.SOCK_STREAM, socket.SOCK_SEQPACKET)
"""A datagram can be sent to any socket that has a name, also by one that is connected."""

_AUDIT: Final = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_X32: Final = 0x40000000
_LOAD, _AND, _JUMP, _EQUAL, _ABOVE, _ANY_BIT, _RETURN = 0x20, 0x54, 0x05, 0x15, 0x25, 0x45, 0x06
_NUMBER, _ARCH, _ARGUMENTS = 0, 4, 16
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_TYPE_MASK: Final = 0xF
_Line = tuple[int, int, int, int]
_DENY: Final = (_RETURN, 0, 0, _ERRNO | errno.EPERM)
_INSTRUCTION = struct.Struct("=HBBI")
_SET_MODE_FILTER: Final = 1
_NO_NEW_PRIVS: Final = 38


def program(
    architecture: str = ARCHITECTURE, *, plain_view: bool = False, same_user: bool = False, network: bool = False
) -> bytes:
    """The filter, as instructions of the kernel's. Raises SandboxError for an architecture that is not known here.

    `plain_view`: the code will be able to name files which only Landlock keeps it from. `same_user`: it will run as the
    node's own user, to whom some of those files belong. `network`: it may use sockets of IP, and then none with a path,
    since it may connect.
    """
    known = numbers(architecture)
    lines = [
        *_unless(_ARCH, _AUDIT[architecture], _KILL),
        (_LOAD, 0, 0, _NUMBER),
        # Above the newest: not there. The numbers of x32 on x86_64 are among them.
        (_ABOVE, 0, 1, NEWEST),
        (_RETURN, 0, 0, _ERRNO | errno.ENOSYS),
        (_EQUAL, 0, 1, known["clone3"]),
        (_RETURN, 0, 0, _ERRNO | errno.ENOSYS),
    ]
    kept = _OF_NETWORKS if network else frozenset()
    denied = sorted((_denied(plain_view=plain_view, same_user=same_user) - kept) & known.keys())
    # Each jumps to the one line that denies, behind the jump over it: half as many lines for the kernel to check.
    lines += [(_EQUAL, len(denied) - place, 0, known[name]) for place, name in enumerate(denied)]
    lines += [(_JUMP, 0, 0, 1), _DENY]
    for name, arguments in _OWN_PROCESS_ONLY.items():
        lines += _section(known[name], [line for which in arguments for line in _only_zero(which)])
    lines += _section(known["clone"], [(_LOAD, 0, 0, _argument(0)), *_deny_bits(NEW_NAMESPACES)])
    owner = plain_view and same_user
    requests = _TTY_INPUT + (_OWNERS_FLAGS if owner else ())
    lines += _section(known["ioctl"], [(_LOAD, 0, 0, _argument(1)), *_deny_values(requests)])
    if owner:
        lines += _section(known["utimensat"], _without_pointer(1))
    lines += _section(known["socket"], _only_ip() if network else _only_unix_pairs())
    lines += _section(known["socketpair"], _only_unix_pairs())
    not_all = [(_LOAD, 0, 0, _argument(0)), *_deny_values((_ALL_OF_USER,))]
    lines += _section(known["ioprio_set"], [*_only_zero(1), *not_all])
    if not network:
        lines += _section(known["sendto"], _without_pointer(4))  # so it is `send`
    lines.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(_INSTRUCTION.pack(*line) for line in lines)


def install(instructions: bytes) -> None:
    """Filter the calls of this process, which is single-threaded, and of all that it starts. There is no way back."""
    prctl(_NO_NEW_PRIVS, 1)
    code = ctypes.create_string_buffer(instructions, len(instructions))
    count = len(instructions) // _INSTRUCTION.size
    head = struct.pack("@HP", count, ctypes.addressof(code))
    try:
        syscall("seccomp", _SET_MODE_FILTER, 0, head)
    except OSError as error:
        raise SandboxError(
            f"system calls cannot be filtered: {error.strerror}", "It needs a kernel with seccomp."
        ) from error


def _denied(*, plain_view: bool, same_user: bool) -> frozenset[str]:
    denied = DENIED
    if plain_view:
        denied |= DENIED_IN_PLAIN_VIEW
    if same_user:
        denied |= DENIED_TO_SAME_USER
    if plain_view and same_user:
        denied |= DENIED_TO_OWNERS
    return denied


def _argument(number: int) -> int:
    """Where its low half is; both architectures are little-endian."""
    return _ARGUMENTS + 8 * number


def _unless(where: int, value: int, otherwise: int) -> list[_Line]:
    return [(_LOAD, 0, 0, where), (_EQUAL, 1, 0, value), (_RETURN, 0, 0, otherwise)]


def _section(number: int, lines: list[_Line]) -> list[_Line]:
    """Lines for one call only; they end in a verdict, since the number is not there any more."""
    body = [*lines, (_RETURN, 0, 0, _ALLOW)]
    return [(_EQUAL, 0, len(body), number), *body]


def _deny_bits(bits: int) -> list[_Line]:
    return [(_ANY_BIT, 0, 1, bits), _DENY]


def _deny_values(values: tuple[int, ...]) -> list[_Line]:
    return [line for value in values for line in ((_EQUAL, 0, 1, value), _DENY)]


def _only_unix_pairs() -> list[_Line]:
    stream, packets = _ONLY_PAIRS
    return [
        *_unless(_argument(0), socket.AF_UNIX, _ERRNO | errno.EPERM),
        (_LOAD, 0, 0, _argument(1)),
        (_AND, 0, 0, _TYPE_MASK),
        (_EQUAL, 2, 0, stream),
        (_EQUAL, 1, 0, packets),
        _DENY,
    ]


def _without_pointer(argument: int) -> list[_Line]:
    """Both halves of it are 0."""
    return [*_only_zero(argument), (_LOAD, 0, 0, _argument(argument) + 4), (_EQUAL, 1, 0, 0), _DENY]


def _only_zero(argument: int) -> list[_Line]:
    return [(_LOAD, 0, 0, _argument(argument)), (_EQUAL, 1, 0, 0), _DENY]


def _only_ip() -> list[_Line]:
    return [(_LOAD, 0, 0, _argument(0)), (_EQUAL, 2, 0, socket.AF_INET), (_EQUAL, 1, 0, socket.AF_INET6), _DENY]
