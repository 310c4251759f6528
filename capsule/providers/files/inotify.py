"""What the system tells of directories, read in batches that cost the node's loop little.

The package that the node uses elsewhere, whose constants these are, makes objects of each event, one by one: a flood of
them, which hostile code can cause, would have the loop for itself.
"""

from __future__ import annotations

import ctypes
import os
import struct
from functools import cache
from typing import TYPE_CHECKING, Final, NamedTuple

from asyncinotify import Mask

if TYPE_CHECKING:
    from collections.abc import Iterator

CREATED: Final = int(Mask.CREATE)
MODIFIED: Final = int(Mask.MODIFY)
DELETED: Final = int(Mask.DELETE)
MOVED_FROM: Final = int(Mask.MOVED_FROM)
MOVED_TO: Final = int(Mask.MOVED_TO)
GONE: Final = int(Mask.DELETE_SELF | Mask.MOVE_SELF | Mask.UNMOUNT)
IGNORED: Final = int(Mask.IGNORED)
OVERFLOW: Final = int(Mask.Q_OVERFLOW)
IS_FOLDER: Final = int(Mask.ISDIR)
_WANTED: Final = (
    CREATED | MODIFIED | DELETED | MOVED_FROM | MOVED_TO | GONE & ~int(Mask.UNMOUNT)
    | int(Mask.ONLYDIR | Mask.EXCL_UNLINK)
)  # fmt: skip
_EVENT: Final = struct.Struct("=iIII")
_BATCH: Final = 2**12
"""Bytes that are read in one go: a hundred events or so."""


class Notice(NamedTuple):
    """One event: which watch, what, which two belong together, and the name in the directory."""

    watch: int
    mask: int
    cookie: int
    name: bytes


class Notices:
    """One queue of the system's. `descriptor` is readable when there is something. Its methods raise OSError."""

    def __init__(self) -> None:
        self.descriptor = _checked(_libc().inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))

    def add(self, held: int) -> int:
        """Watch a directory, by a descriptor of it; the number of the watch."""
        path = f"/proc/self/fd/{held}".encode()
        return _checked(_libc().inotify_add_watch(self.descriptor, path, ctypes.c_uint32(_WANTED)))

    def remove(self, watch: int) -> None:
        """Watch it no longer."""
        _checked(_libc().inotify_rm_watch(self.descriptor, watch))

    def read(self) -> Iterator[Notice]:
        """What there is, up to a bound; nothing if there is nothing."""
        try:
            data = os.read(self.descriptor, _BATCH)
        except BlockingIOError:
            return
        at = 0
        while at < len(data):
            watch, mask, cookie, size = _EVENT.unpack_from(data, at)
            at += _EVENT.size
            yield Notice(watch, mask, cookie, data[at : at + size].rstrip(b"\0"))
            at += size

    def close(self) -> None:
        """End all watches. Idempotent."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def _checked(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
