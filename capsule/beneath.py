"""Opening what lies beneath a directory, and nothing else, while hostile code may change every name in it.

Nothing is opened by a path that the system resolves on its own: the walk starts at a descriptor, and no step may be a
symbolic link, `..`, or lead out. Linux does the walk in one call (openat2); where that is missing or forbidden, each
step is taken from the descriptor of the one before, which comes to the same.

What a name leads to is first only held (O_PATH), which has no effect on it, and looked at; then that very thing is
opened, whatever its name leads to by now. So no pipe, socket or device is ever opened.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import stat
import struct
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_PATH_BYTES = 4096
"""Of a whole name; the system allows no more."""
MAX_DEPTH = 64
"""Folders on the way to a file."""
HELD = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

_OPENAT2 = 437
_NO_MOUNTS = 0x01
_RESOLVE = 0x02 | 0x04 | 0x08
"""RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, RESOLVE_BENEATH; the one above is RESOLVE_NO_XDEV."""
_HOW = struct.Struct("=QQQ")
_NOT_HERE = frozenset({errno.ENOSYS, errno.EPERM, errno.E2BIG, errno.EINVAL, errno.EAGAIN})
"""What says that openat2 cannot be had here, or (EAGAIN) not while names change: the steps can."""
_HAS_OPENAT2 = platform.system() == "Linux"


class Astray(Exception):  # noqa: N818 (it says what the name does)
    """A name leads to something else than a folder or a regular file beneath the directory; the text says why."""


def parts_of(name: str) -> list[str]:
    """The steps of a relative name. Raises Astray for what is no name below a directory."""
    parts = name.split("/")
    if "\0" in name or {"", ".", ".."} & set(parts):
        raise Astray("is not 'name' or 'folder/name'")
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise Astray("is not text that UTF-8 can encode") from None
    if size > MAX_PATH_BYTES or len(parts) > MAX_DEPTH:
        raise Astray(f"has more than {MAX_PATH_BYTES} bytes or {MAX_DEPTH} folders")
    return parts


def hold(top: int, parts: Sequence[str], *, mounts: bool = True) -> int:
    """A descriptor of whatever is there, which is no link: good for looking at it, and for steps from it.

    `mounts`: it may lie on another file system than the directory. Raises OSError: ELOOP for a link, EXDEV for another
    file system.
    """
    if _HAS_OPENAT2:
        try:
            return _openat2(top, "/".join(parts) or ".", _RESOLVE if mounts else _RESOLVE | _NO_MOUNTS)
        except OSError as error:
            if error.errno not in _NOT_HERE:
                raise
    return _hold_in_steps(top, parts, mounts=mounts)


def step(folder: int, part: str, *, mounts: bool = True) -> int:
    """The same for one name in a folder."""
    inner = os.open(part, HELD, dir_fd=folder)
    try:
        code = 0
        if stat.S_ISLNK(os.fstat(inner).st_mode):
            code = errno.ELOOP
        elif not mounts and _mount_of(inner) != _mount_of(folder):
            code = errno.EXDEV
    except BaseException:
        os.close(inner)
        raise
    if code:
        os.close(inner)
        raise OSError(code, os.strerror(code), part)
    return inner


def reopen(held: int, flags: int) -> int:
    """Open what is held, and nothing else. The link that the system has for it leads there by no name."""
    try:
        return os.open(f"/proc/self/fd/{held}", flags & ~os.O_NOFOLLOW)
    except FileNotFoundError as error:
        raise OSError(errno.ENOSYS, "/proc is not mounted") from error


def open_file(top: int, parts: Sequence[str], flags: int, *, mounts: bool = True) -> tuple[int, os.stat_result]:
    """A regular file. Raises IsADirectoryError, Astray for what is neither, OSError as `hold` and the system do."""
    held = hold(top, parts, mounts=mounts)
    try:
        regular(os.fstat(held))
        descriptor = reopen(held, flags | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        return descriptor, os.fstat(descriptor)
    finally:
        os.close(held)


def open_folder(top: int, parts: Sequence[str], *, mounts: bool = True) -> int:
    """A folder, to be listed. Raises NotADirectoryError, Astray for what is no file either, OSError as `hold` does."""
    held = hold(top, parts, mounts=mounts)
    try:
        status = os.fstat(held)
        if not stat.S_ISDIR(status.st_mode):
            regular(status)  # for such a file, what follows says that it is no directory
        return os.open(".", FOLDER, dir_fd=held)
    finally:
        os.close(held)


def regular(status: os.stat_result) -> None:
    """Raise IsADirectoryError for a folder, Astray for what is no regular file either."""
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(status.st_mode):
        raise Astray("is no regular file")


def _openat2(top: int, path: str, resolve: int) -> int:
    # Without O_NOFOLLOW: together with O_PATH it would give a link instead of refusing it.
    how = ctypes.create_string_buffer(_HOW.pack(HELD & ~os.O_NOFOLLOW, 0, resolve), _HOW.size)
    name = ctypes.c_char_p(os.fsencode(path))
    number, at, size = ctypes.c_long(_OPENAT2), ctypes.c_int(top), ctypes.c_size_t(_HOW.size)
    descriptor = int(_libc().syscall(number, at, name, how, size))
    if descriptor < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), path)
    return descriptor


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _hold_in_steps(top: int, parts: Sequence[str], *, mounts: bool) -> int:
    folder = os.open(".", HELD, dir_fd=top)
    for part in parts:
        try:
            inner = step(folder, part, mounts=mounts)
        finally:
            os.close(folder)
        folder = inner
    return folder


def _mount_of(descriptor: int) -> str:
    """The id of the mount on which it lies; two that show the same file system have different ones."""
    with open(f"/proc/self/fdinfo/{descriptor}", encoding="ascii") as lines:  # noqa: PTH123 (it is no path of a user)
        return next(line for line in lines if line.startswith("mnt_id"))
