"""Opening what lies beneath a directory, and nothing else, while hostile code may change every name in it.

Nothing is opened by a path that the system resolves on its own: the walk starts at a descriptor, and no step may be a
symbolic link, `..`, or lead out. Linux does the walk in one call (openat2); elsewhere, or where that is forbidden, each
folder is opened from the one before, which comes to the same.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import stat
import struct
from contextlib import contextmanager, suppress
from functools import cache
from typing import TYPE_CHECKING

from capsule_protocol.errors import SessionError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

MAX_NAME_BYTES = 4096
"""Of a whole name; the system allows no more."""
MAX_DEPTH = 64
"""Folders on the way to a file."""
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Without O_NONBLOCK a pipe of that name would wait for its other end.
FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

_OPENAT2 = 437
_RESOLVE = 0x02 | 0x04 | 0x08
"""RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, RESOLVE_BENEATH."""
_HOW = struct.Struct("=QQQ")
_NOT_HERE = frozenset({errno.ENOSYS, errno.EPERM, errno.E2BIG, errno.EINVAL, errno.EAGAIN})
"""What says that openat2 cannot be had here, or (EAGAIN) not while names change: the steps can."""
_LEADS_ASTRAY = frozenset({errno.ELOOP, errno.EXDEV, errno.ENXIO, errno.EISDIR, errno.ENODEV})
_HAS_OPENAT2 = platform.system() == "Linux"


def parts_of(name: str) -> list[str]:
    """The steps of a relative name. Raises SessionError `file_refused` for what is no name below a directory."""
    parts = name.split("/")
    if "\0" in name or {"", ".", ".."} & set(parts):
        raise refused(name, "is not 'name' or 'folder/name' below the session's directory")
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise refused(name, "is not text that UTF-8 can encode") from None
    if size > MAX_NAME_BYTES or len(parts) > MAX_DEPTH:
        raise refused(name, f"has more than {MAX_NAME_BYTES} bytes or {MAX_DEPTH} folders")
    return parts


def open_top(box: Path, name: str) -> int:
    """A descriptor of a folder in a box's directory, neither of which may have become a link."""
    outer = os.open(box, FOLDER)
    try:
        return os.open(name, FOLDER, dir_fd=outer)
    finally:
        os.close(outer)


def open_file(top: int, name: str) -> tuple[int, os.stat_result]:
    """A regular file beneath `top`, to be read. Raises SessionError `file_unknown` or `file_refused`."""
    parts = parts_of(name)
    with explained(name):
        descriptor = _open_beneath(top, parts, FILE)
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            os.close(descriptor)
            raise refused(name, "is no regular file")
        return descriptor, status


@contextmanager
def folder_of(top: int, name: str, *, create: bool = False) -> Iterator[tuple[int, str]]:
    """The folder of a name beneath `top`, as a descriptor, and the last part. Raises as `open_file`."""
    *folders, last = parts_of(name)
    with explained(name):
        descriptor = _make_folders(top, folders) if create else _open_beneath(top, folders or ["."], FOLDER)
    try:
        yield descriptor, last
    finally:
        os.close(descriptor)


@contextmanager
def explained(name: str) -> Iterator[None]:
    """What the system says of a name, as an error of ours."""
    try:
        yield
    except FileNotFoundError:
        raise SessionError("file_unknown", f"the session has no file {name[:200]!r}") from None
    except OSError as error:
        if error.errno in _LEADS_ASTRAY or isinstance(error, NotADirectoryError):
            raise refused(name, "leads through or to something else than folders and a regular file") from error
        raise failed(name, error) from error


def refused(name: str, why: str) -> SessionError:
    """The one error for a name that leads elsewhere, whatever it is."""
    return SessionError("file_refused", f"{name[:200]!r} {why}")


def failed(name: str, error: OSError) -> SessionError:
    """The disk is full, or something of that kind."""
    return SessionError("transfer_failed", f"{name[:200]!r}: {error.strerror or error}")


def _open_beneath(top: int, parts: Sequence[str], flags: int) -> int:
    if _HAS_OPENAT2:
        try:
            return _openat2(top, "/".join(parts), flags)
        except OSError as error:
            if error.errno not in _NOT_HERE:
                raise
    return _open_in_steps(top, parts, flags)


def _openat2(top: int, path: str, flags: int) -> int:
    how = ctypes.create_string_buffer(_HOW.pack(flags, 0, _RESOLVE), _HOW.size)
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


def _open_in_steps(top: int, parts: Sequence[str], flags: int) -> int:
    *folders, last = parts
    folder = os.dup(top)
    try:
        for part in folders:
            folder = _step(folder, part)
        return os.open(last, flags, dir_fd=folder)
    finally:
        os.close(folder)


def _make_folders(top: int, folders: Sequence[str]) -> int:
    folder = os.dup(top)
    try:
        for part in folders:
            with suppress(FileExistsError):  # if it is no folder, opening it says so
                os.mkdir(part, 0o777, dir_fd=folder)
            folder = _step(folder, part)
    except BaseException:
        os.close(folder)
        raise
    return folder


def _step(folder: int, part: str) -> int:
    inner = os.open(part, FOLDER, dir_fd=folder)
    os.close(folder)
    return inner
