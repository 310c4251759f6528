"""The sandbox of one program: what it sees and may do, by the same means as that of a worker, for a run of its own.

At every level it gains no privileges. `landlock`: it reads the system's files, its own file, what its grant names, and
its roots; it writes its own directory and the roots that may be written; it sends no signal out, and has no socket, or
those of networks only.
`namespaces`: all of that, among processes of its own, in a tree of mounts that is read-only but for the same places,
with its own directory in memory, of a bounded size.
"""

from __future__ import annotations

import os
import struct
from contextlib import suppress
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Final

from capsule_kernels import system
from capsule_kernels.programs import groups
from capsule_kernels.sandbox import landlock, levels, limits, namespaces, seccomp, view
from capsule_kernels.sandbox.errors import SandboxError
from capsule_kernels.sandbox.syscalls import prctl, syscall

if TYPE_CHECKING:
    from capsule_kernels.programs.spec import Run

_NEWNET: Final = 0x40000000
_BIND: Final = 4096 | 16384
"""With the mounts below it."""
_NOSUID_NODEV: Final = 6
_AT_FDCWD, _AT_RECURSIVE, _RDONLY = -100, 0x8000, 1
_ATTRIBUTES = struct.Struct("=QQQQ")
_NO_NEW_PRIVS: Final = 38
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FOR_NETWORKS: Final = ("/etc/hosts", "/etc/resolv.conf", "/etc/ssl", "/etc/services", "/etc/protocols")


_filter = cache(seccomp.program)


def prepare() -> None:
    """In the launcher: what is the same for all runs is made once."""
    with suppress(SandboxError):  # whoever needs it will be told
        for beside in (False, True):
            _filter(plain_view=beside, same_user=beside, network=False)


def fork(level: str, *, network: bool) -> int:
    """The fork of a keeper: 0 in the child. Raises OSError."""
    if level != "namespaces":
        return os.fork()
    flags = namespaces.ALL & ~(_NEWNET if network else 0)
    user, group = os.geteuid(), os.getegid()
    pid = namespaces.clone(flags | (namespaces.NEWUSER if user else 0))
    if pid == 0 and user:
        namespaces.keep_identity(user, group)
    return pid


def settle(run: Run) -> Run:
    """In the keeper, before it forks the program: the run, by descriptors of the mounts that it has now."""
    if run.level == "none":
        return run
    limits.hide()
    if run.level != "namespaces":
        return run
    namespaces.own_mounts()
    size = run.limits["scratch_bytes"]
    syscall("mount", b"tmpfs", os.fsencode(run.directory), b"tmpfs", _NOSUID_NODEV, f"mode=700,size={size}".encode())
    writable = [run.directory]
    for root in run.roots:
        path = os.fsencode(root.path)
        syscall("mount", path, path, None, _BIND, None)
        if root.writable and not os.statvfs(path).f_flag & os.ST_RDONLY:
            writable.append(root.path)
    _set_read_only("/", recursive=True)
    for place in writable:
        _set_read_only(place, cleared=True)
    roots = [replace(root, descriptor=_again(root.path, root.descriptor, _FOLDER)) for root in run.roots]
    program = _again(run.real, run.given.program, os.O_RDONLY | os.O_CLOEXEC)
    return replace(run, roots=roots, given=run.given._replace(program=program))


def enter(run: Run, keeper: int) -> None:
    """In the program's process, before it begins. Raises SandboxError, OSError."""
    rules = None if run.level == "none" else _rules(run)  # while it may still open all of that
    if rules is not None:
        limits.bound_capabilities()
    if run.uid is not None and run.uid != os.geteuid():
        os.chown(run.directory, run.uid, run.uid)
        limits.become(run.uid, run.uid)
        system.die_with_parent(keeper)  # who becomes another user is forgotten
    if rules is None:
        prctl(_NO_NEW_PRIVS, 1)
        return
    limits.drop_capabilities()
    limits.stay_visible()
    rules.restrict()
    # A mount that is read-only keeps the modes of its files, too. Where there is none, only the filter does.
    beside = run.level == "landlock"
    seccomp.install(_filter(plain_view=beside, same_user=beside, network=run.network))


def lacking(level: str) -> str:
    """Why this machine cannot give the level, or bound `cpus`; "" if it can."""
    if level == "none":
        return ""
    if level == groups.CPUS:
        return groups.lacking()
    try:
        levels.check(level, owner=True)
        if level == "namespaces":
            _try_namespaces()
    except SandboxError as error:
        return f"{error.message}. {error.hint}"
    except OSError as error:
        return f"there are no namespaces to be had: {error.strerror}"
    return ""


def _try_namespaces() -> None:
    pid = fork("namespaces", network=False)
    if pid == 0:
        try:
            namespaces.own_mounts()
            _set_read_only("/", recursive=True)
            os._exit(0)
        except OSError as error:
            os._exit(error.errno or 1)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code:
        raise OSError(code, os.strerror(code) if code > 0 else "killed")


def _rules(run: Run) -> landlock.Ruleset:
    rules = landlock.Ruleset(network=run.network)
    readable = [*view.SYSTEM, *run.readable, "/proc", *(_FOR_NETWORKS if run.network else ())]
    rules.read([*readable, *(_by_descriptor(root.descriptor) for root in run.roots if not root.writable)])
    rules.read([_by_descriptor(run.given.program)])
    rules.use(view.DEVICES)
    rules.write([run.directory, *(_by_descriptor(root.descriptor) for root in run.roots if root.writable)])
    return rules


def _by_descriptor(descriptor: int) -> str:
    return f"/proc/self/fd/{descriptor}"


def _again(path: str, descriptor: int, flags: int) -> int:
    """The same file, opened in the mounts that there are now."""
    opened = os.open(path, flags)
    if not os.path.samestat(os.fstat(opened), os.fstat(descriptor)):
        raise OSError(0, f"{path} is not what it was when its grant came into force")
    return opened


def _set_read_only(path: str, *, recursive: bool = False, cleared: bool = False) -> None:
    attributes = _ATTRIBUTES.pack(0 if cleared else _RDONLY, _RDONLY if cleared else 0, 0, 0)
    flags = _AT_RECURSIVE if recursive else 0
    syscall("mount_setattr", _AT_FDCWD, os.fsencode(path), flags, attributes, len(attributes))
