"""A tree of mounts that is made once and copied for each worker, by two calls instead of seventy.

It hangs nowhere: only its descriptor leads to it. It takes root, and a kernel that mounts into such trees (Linux 6.15).
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, Final

from capsule_kernels.sandbox.syscalls import syscall

if TYPE_CHECKING:
    from collections.abc import Callable

_FSOPEN_CLOEXEC, _FSMOUNT_CLOEXEC = 1, 1
_SET_STRING, _CREATE = 1, 6
_CLONE: Final = 1
_TREE_CLOEXEC: Final = os.O_CLOEXEC
_FROM_DESCRIPTOR: Final = 4
_AT_FDCWD, _AT_RECURSIVE, _AT_EMPTY_PATH = -100, 0x8000, 0x1000
_RDONLY, _NOSUID, _NODEV = 1, 2, 4
_PRIVATE: Final = 1 << 18
_ATTRIBUTES = struct.Struct("=QQQQ")


def grow(options: dict[str, str], fill: Callable[[str], None]) -> int:
    """The descriptor of a tree whose root is a tmpfs; `fill` puts into it what belongs there, and gets its path.

    From then on it is read-only. Raises OSError where there are no such trees.
    """
    tree = _tmpfs(options)
    try:
        fill(f"/proc/self/fd/{tree}")
        attributes = _ATTRIBUTES.pack(_RDONLY | _NOSUID, 0, _PRIVATE, 0)
        syscall("mount_setattr", tree, b"", _AT_EMPTY_PATH | _AT_RECURSIVE, attributes, len(attributes))
        os.close(_copy(tree))  # where that cannot be, it is of no use
    except BaseException:
        os.close(tree)
        raise
    return tree


def graft(source: str, target: str) -> None:
    """Mount what is at `source`, with all that is mounted below it, in a tree too. Raises OSError."""
    _move(syscall("open_tree", _AT_FDCWD, os.fsencode(source), _CLONE | _TREE_CLOEXEC | _AT_RECURSIVE), target)


def plant(tree: int, target: str) -> None:
    """Mount a copy of the tree. Raises OSError."""
    _move(_copy(tree), target)


def _copy(tree: int) -> int:
    return syscall("open_tree", tree, b"", _CLONE | _TREE_CLOEXEC | _AT_EMPTY_PATH | _AT_RECURSIVE)


def _move(mount: int, target: str) -> None:
    try:
        syscall("move_mount", mount, b"", _AT_FDCWD, os.fsencode(target), _FROM_DESCRIPTOR)
    finally:
        os.close(mount)


def _tmpfs(options: dict[str, str]) -> int:
    system = syscall("fsopen", b"tmpfs", _FSOPEN_CLOEXEC)
    try:
        for name, value in options.items():
            syscall("fsconfig", system, _SET_STRING, name.encode(), value.encode(), 0)
        syscall("fsconfig", system, _CREATE, None, None, 0)
        return syscall("fsmount", system, _FSMOUNT_CLOEXEC, _NOSUID | _NODEV)
    finally:
        os.close(system)
