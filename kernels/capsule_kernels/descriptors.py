"""Descriptors that cross a fork or a Unix socket."""

from __future__ import annotations

import fcntl
import os
import socket
import stat
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import msgpack

from capsule_protocol import passing

if TYPE_CHECKING:
    from collections.abc import Collection

MESSAGE_BYTES = 200 * 1024  # what the kernel's default socket buffer takes in one piece
_MOST_DESCRIPTORS = 8


class BoxDescriptors(NamedTuple):
    """What the node gives a box: its lease, the write ends of the worker's output, and the shared page."""

    lease: int
    stdout: int
    stderr: int
    page: int


def send(sock: socket.socket, message: dict[str, Any], descriptors: Collection[int] = ()) -> None:
    """Send one message; a peer that is gone is no error, since its end is noticed where messages are received."""
    with suppress(BrokenPipeError, ConnectionResetError):
        deliver(sock, message, descriptors)


def deliver(sock: socket.socket, message: dict[str, Any], descriptors: Collection[int] = ()) -> None:
    """Send one message. Raises OSError, also if the peer is gone."""
    socket.send_fds(sock, [msgpack.packb(message, unicode_errors="backslashreplace")], list(descriptors))


def receive(sock: socket.socket) -> tuple[dict[str, Any] | None, list[int]]:
    """The next message and its descriptors; None when the peer has gone, and all that it has sent has been received."""
    try:
        data, descriptors = _receive(sock)
    except ConnectionResetError:  # it has left something unread: told once, before what it has sent itself
        data, descriptors = _receive(sock)
    return (msgpack.unpackb(data) if data else None), descriptors


def _receive(sock: socket.socket) -> tuple[bytes, list[int]]:
    return passing.receive(sock, MESSAGE_BYTES, _MOST_DESCRIPTORS)[:2]


def close_all(descriptors: Collection[int]) -> None:
    """Close each of them."""
    for descriptor in descriptors:
        os.close(descriptor)


def close_all_but(kept: Collection[int]) -> None:
    """Close every descriptor above 2 that is not kept, without asking whose it is."""
    low = 3
    for descriptor in sorted(kept):
        os.closerange(low, descriptor)
        low = max(low, descriptor + 1)
    os.closerange(low, 2**31 - 1)


def sever(kept: Collection[int]) -> None:
    """Cut a forked process off from what its parent had open, above 2 and except what is kept.

    A file that is only read is opened anew, at the same place: siblings would otherwise move each other's offset. All
    else (sockets, event loops, locks on files, files being written) becomes /dev/null. The numbers stay taken, because
    objects of the parent still refer to them and would otherwise close somebody else's descriptor later.
    """
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 (no paths are wanted, only numbers)
        descriptor = int(name)
        if descriptor > 2 and descriptor != null and descriptor not in kept:
            with suppress(OSError):  # the descriptor of the listing itself is closed by now
                _replace(descriptor, null)
    os.close(null)


def _replace(descriptor: int, null: int) -> None:
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode) or flags & os.O_ACCMODE != os.O_RDONLY:
        os.dup2(null, descriptor, inheritable=False)
        return
    try:
        own = os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        own = os.dup(null)
    else:
        os.lseek(own, os.lseek(descriptor, 0, os.SEEK_CUR), os.SEEK_SET)
    os.dup2(own, descriptor, inheritable=False)
    os.close(own)
