"""Namespaces: a box of its own processes, network, mounts, IPC and host name; and what of the files it can see.

The box is made by `clone` and not by `unshare`, so that it is the first process of its PID namespace, and so that the
kernel can give an ordinary user a user namespace in the same step. What Python does around a fork is done around it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import struct
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from capsule_kernels.sandbox import trees
from capsule_kernels.sandbox.syscalls import last_error, numbers, prctl, syscall
from capsule_kernels.sandbox.view import SHARED_MEMORY, TEMPORARY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

NEWUSER: Final = 0x10000000
_NEWNS: Final = 0x00020000
_NEWUTS, _NEWIPC, _NEWPID, _NEWNET = 0x04000000, 0x08000000, 0x20000000, 0x40000000
ALL: Final = _NEWNS | _NEWUTS | _NEWIPC | _NEWPID | _NEWNET
"""What a box has of its own; an ordinary user needs NEWUSER too."""
_CHILD_CLEARTID, _CHILD_SETTID = 0x00200000, 0x01000000
_INTO_CGROUP: Final = 0x2_0000_0000
_CLONE_ARGUMENTS = struct.Struct("=11Q")
_PR_GET_TID_ADDRESS: Final = 40

_NOSUID, _NODEV, _NOEXEC = 2, 4, 8
_BIND, _REC, _PRIVATE = 4096, 16384, 1 << 18
_DETACH: Final = 2
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000
_ATTR_RDONLY, _ATTR_NOSUID = 1, 2
_ATTRIBUTES = struct.Struct("=QQQQ")
_FEWEST_NAMES, _BYTES_A_NAME = 4096, 4096
"""Scratch has room for so many files, and for one more with each so many bytes of its size."""
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC

SCRATCH: Final = ("files", "cells", "checkpoints", "tmp", "home")
"""The folders of a box's directory that belong to its worker."""
_ROOT: Final = {"mode": "755", "size": "4m"}
"""Of the file system that has the root directory; each worker may have one, or all share it, to read."""
_SKELETON: Final = (TEMPORARY, "/dev", SHARED_MEMORY, "/proc")
_LINKS: Final = {"/dev/fd": "/proc/self/fd", "/dev/stdin": "fd/0", "/dev/stdout": "fd/1", "/dev/stderr": "fd/2"}

_python = ctypes.PyDLL(None, use_errno=True)  # unlike CDLL it keeps the interpreter's lock, as a fork must
_python.syscall.restype = ctypes.c_long
_python.PyOS_BeforeFork.restype = None
_python.PyOS_AfterFork_Child.restype = None
_python.PyOS_AfterFork_Parent.restype = None
_libc = ctypes.CDLL(None, use_errno=True)


def clone(flags: int) -> int:
    """Fork into new namespaces: 0 in the child. Only for a process with one thread. Raises OSError."""
    address = ctypes.c_ulong()
    with suppress(OSError):  # else the C library keeps the parent's number, which nothing here asks it for
        prctl(_PR_GET_TID_ADDRESS, ctypes.addressof(address))
    if address.value:
        flags |= _CHILD_SETTID | _CHILD_CLEARTID
    wide, nothing = ctypes.c_ulong(flags | signal.SIGCHLD), ctypes.c_ulong()
    # On x86_64 the fourth argument is where the child's number goes, on aarch64 the fifth; the other is not looked at.
    return _forked("clone", wide, nothing, nothing, address, address)


def fork_into(group: int) -> int:
    """Fork so that the child is in this control group (version 2) from the first: to move there takes 7 ms.

    `group` is a descriptor of its folder. 0 in the child. Only for a process with one thread. Raises OSError.
    """
    address = ctypes.c_ulong()
    with suppress(OSError):  # as above
        prctl(_PR_GET_TID_ADDRESS, ctypes.addressof(address))
    flags = _INTO_CGROUP | (_CHILD_SETTID | _CHILD_CLEARTID if address.value else 0)
    arguments = _CLONE_ARGUMENTS.pack(flags, 0, address.value, 0, signal.SIGCHLD, 0, 0, 0, 0, 0, group)
    return _forked("clone3", arguments, ctypes.c_ulong(len(arguments)))


def _forked(name: str, *arguments: ctypes.c_ulong | bytes) -> int:
    """Make the call between what Python does before and after a fork."""
    number = ctypes.c_long(numbers()[name])
    _python.PyOS_BeforeFork()
    pid = int(_python.syscall(number, *arguments))
    if pid == 0:
        _python.PyOS_AfterFork_Child()
        return 0
    failure = last_error(name) if pid < 0 else None
    _python.PyOS_AfterFork_Parent()
    if failure is not None:
        raise failure
    return pid


def keep_identity(user: int, group: int) -> None:
    """In a new user namespace: be there who one is outside."""
    for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
        Path(f"/proc/self/{name}").write_text(text, encoding="ascii")


def own_mounts() -> None:
    """In a new mount namespace: let nothing of it out, and see the processes of this PID namespace only."""
    _mount(None, "/", None, _REC | _PRIVATE)
    _mount("proc", "/proc", "proc", _NOSUID | _NODEV | _NOEXEC)


class View:
    """A root directory with what is needed and nothing else. Made once, before any fork; built in each worker."""

    def __init__(self, readable: Sequence[str], devices: Sequence[str], scratch_bytes: int) -> None:
        below = [path for path in readable if path.startswith((f"{TEMPORARY}/", f"{SHARED_MEMORY}/"))]
        self._late = _Places(below)  # in what is each worker's own
        self._early = _Places([*(path for path in readable if path not in below), *devices])
        self._size = scratch_bytes
        self._tree = -1
        with suppress(OSError):  # then each worker mounts all of it
            self._tree = trees.grow(_ROOT, self._fill)

    @property
    def descriptors(self) -> list[int]:
        """What a worker needs until its view is built."""
        return [self._tree] if self._tree >= 0 else []

    def build(self, directory: str, user: int, group: int) -> int:
        """See nothing else from here on, and have an empty scratch in place of `directory`; its descriptor is given."""
        syscall("unshare", _NEWNS)
        root = directory
        whole = self._tree >= 0 and directory.startswith(f"{TEMPORARY}/")  # elsewhere there is no place for the scratch
        if whole:
            trees.plant(self._tree, root)
        else:
            _mount("tmpfs", root, "tmpfs", _NOSUID | _NODEV, ",".join(map("=".join, _ROOT.items())))
            _make_skeleton(root)
        for descriptor in self.descriptors:
            os.close(descriptor)
        writable = self._mount_scratch(root, directory, user, group)
        for places in (self._late,) if whole else (self._early, self._late):
            places.make(root)
            places.show(root, _bind)
        _bind("/proc", f"{root}/proc")
        _set_attributes(root, _ATTR_RDONLY | _ATTR_NOSUID, recursive=True)
        for place in writable:
            _set_attributes(root + place, 0, cleared=_ATTR_RDONLY)
        descriptor = os.open(root + directory, _FOLDER)
        _leave_for(root)
        return descriptor

    def _fill(self, root: str) -> None:
        _make_skeleton(root)
        self._early.make(root)
        self._early.show(root, trees.graft)

    def _mount_scratch(self, root: str, directory: str, user: int, group: int) -> tuple[str, ...]:
        """One file system of a bounded size for all that may be written; gives where it is.

        It is mounted before what is needed, which may be below it.
        """
        in_temporary = directory.startswith(f"{TEMPORARY}/")
        top, mode = (TEMPORARY, "1777") if in_temporary else (directory, "711")
        os.makedirs(root + top, 0o755, exist_ok=True)  # noqa: PTH103
        # A file of no bytes takes memory too, of the kernel's.
        names = max(_FEWEST_NAMES, self._size // _BYTES_A_NAME)
        options = f"mode={mode},size={self._size},nr_inodes={names}"
        _mount("tmpfs", root + top, "tmpfs", _NOSUID | _NODEV, options)
        os.makedirs(root + directory, 0o711, exist_ok=True)  # noqa: PTH103
        make_folders(root + directory, (*SCRATCH, "shm"), user, group)
        _bind(f"{root}{directory}/shm", root + SHARED_MEMORY)
        if in_temporary:
            return top, SHARED_MEMORY
        _bind(f"{root}{directory}/tmp", root + TEMPORARY)  # noqa: S108
        return top, SHARED_MEMORY, TEMPORARY


class _Places:
    """Of paths that are to be seen in another root directory: the places for them there."""

    def __init__(self, paths: Sequence[str]) -> None:
        links = {path: str(Path(path).readlink()) for path in paths if Path(path).is_symlink()}
        self._links = [*links.items()]
        self._shown = [path for path in paths if path not in links]
        folders = [path for path in self._shown if Path(path).is_dir()]
        self._folders = _in_order([*folders, *_parents(paths)], but=_SKELETON)
        self._files = [path for path in self._shown if path not in folders]

    def make(self, root: str) -> None:
        """Make them below `root`."""
        for folder in self._folders:
            with suppress(FileExistsError):
                os.mkdir(root + folder, 0o755)  # noqa: PTH102
        for path in self._files:
            os.close(os.open(root + path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        for path, target in self._links:
            os.symlink(target, root + path)  # noqa: PTH211

    def show(self, root: str, mount: Callable[[str, str], None]) -> None:
        """Mount there what is at the paths."""
        for path in self._shown:
            mount(path, root + path)


def _make_skeleton(root: str) -> None:
    for folder in _SKELETON:
        os.mkdir(root + folder, 0o755)  # noqa: PTH102  # as below: this is the way to every new session
    for path, target in _LINKS.items():
        os.symlink(target, root + path)  # noqa: PTH211


def make_folders(directory: str, names: Iterable[str], user: int, group: int) -> None:
    """Folders of this user's that nobody else can look into."""
    for name in names:
        path = f"{directory}/{name}"
        os.mkdir(path, 0o700)  # noqa: PTH102
        if user != os.geteuid():
            os.chown(path, user, group)


def _parents(paths: Iterable[str]) -> list[str]:
    return [str(parent) for path in paths for parent in Path(path).parents]


def _in_order(paths: Iterable[str], but: Sequence[str]) -> list[str]:
    """Each once, parents first."""
    return sorted(set(paths) - {*but, "/"})


def _leave_for(root: str) -> None:
    """Make it the root directory, and let go of the old one."""
    os.chdir(root)
    syscall("pivot_root", b".", b".")
    syscall("umount2", b".", _DETACH)
    os.chdir("/")


def _bind(source: str, target: str) -> None:
    _mount(source, target, None, _BIND | _REC)


def _set_attributes(path: str, wanted: int, *, cleared: int = 0, recursive: bool = False) -> None:
    attributes = _ATTRIBUTES.pack(wanted, cleared, 0, 0)
    flags = _AT_RECURSIVE if recursive else 0
    syscall("mount_setattr", _AT_FDCWD, os.fsencode(path), flags, attributes, len(attributes))


def _mount(source: str | None, target: str, kind: str | None, flags: int, options: str = "") -> None:
    encoded = [None if text is None else os.fsencode(text) for text in (source, target, kind)]
    if _libc.mount(*encoded, ctypes.c_ulong(flags), os.fsencode(options)) != 0:
        raise last_error(f"mount {kind or source or ''} on {target}")
