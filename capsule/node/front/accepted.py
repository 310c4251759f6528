"""A TCP connection under ZeroMQ, by a descriptor of the node's own: so it can be measured, and ended."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import termios
from typing import TYPE_CHECKING, Final, Protocol

from capsule.lane import hold_little

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable

    from capsule_protocol.envelope import Buffer

SEAL: Final = 33
"""Bytes by which CURVE makes a frame larger: its name, a number, the proof, the flags."""
_SMALL = 256
_INFO = struct.Struct("=B127xQ")
"""`tcpi_state` and `tcpi_bytes_received` in the `tcp_info` of Linux 4.1 and later."""
_ESTABLISHED, _END = 1, 1
"""A state; and the byte that the end of a connection counts for."""
_NUMBER = struct.Struct("=i")
_AT_ONCE = struct.pack("=ii", 1, 0)
_FAMILIES = (socket.AF_INET, socket.AF_INET6)


class Taker(Protocol):
    """Who takes the messages of a connection."""

    @property
    def greeted(self) -> bool:
        """Whether its client has said who it is, and may be here."""


class Accepted:
    """Made when ZeroMQ tells of it, before anything was said. Raises OSError if it is over already.

    The descriptor is a copy: it means this connection for as long as we have it, whatever ZeroMQ's number means then.
    """

    def __init__(self, number: int, *, encrypted: bool) -> None:
        self.number = number
        self.taker: Taker | None = None
        self.deadline: asyncio.TimerHandle | None = None
        self.closing = False
        """What it says is not listened to any more."""
        self.delivered = 0
        """Bytes of all messages that ZeroMQ has handed over, as they travelled."""
        self._seal = SEAL if encrypted else 0
        self._socket = _copy(number)
        try:
            self.name = str(self._socket.getpeername()[0])
            self.received()
            hold_little(number)
        except OSError:
            self._socket.close()
            raise

    @property
    def over(self) -> bool:
        """Whether it was closed here."""
        return self._socket.fileno() < 0

    @property
    def greeted(self) -> bool:
        """Whether it is a client's, and not only somebody's."""
        return self.taker is not None and self.taker.greeted

    def fileno(self) -> int:
        """Our own descriptor."""
        return self._socket.fileno()

    def took(self, frames: Iterable[Buffer]) -> None:
        """ZeroMQ has handed over a message."""
        for frame in frames:
            size = len(frame) + self._seal
            self.delivered += size + (2 if size < _SMALL else 9)

    def received(self) -> int:
        """All bytes that have arrived, those that wait in the system too. Raises OSError."""
        return self._info()[1]

    def unread(self) -> int:
        """Bytes that wait in the system, which bounds them. Raises OSError."""
        number: int
        (number,) = _NUMBER.unpack(fcntl.ioctl(self._socket, termios.FIONREAD, bytes(_NUMBER.size)))
        return number

    def offends(self) -> bool:
        """Whether ZeroMQ, which has just ended it, could not read what came.

        That is so if a client is there still, or if somebody spoke and never became one.
        """
        try:
            state, received = self._info()
        except OSError:
            return False
        return state == _ESTABLISHED if self.taker is not None else received > _END

    def cut(self, *, reset: bool) -> None:
        """End the connection; ZeroMQ notices and forgets what it held of it.

        With `reset` the other end hears of it even while it waits for room; what was not sent yet is lost.
        """
        try:
            if reset:
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # it is over already

    def close(self) -> None:
        """Let go of it: it ends when ZeroMQ does so too. Idempotent."""
        if self.deadline is not None:
            self.deadline.cancel()
        self._socket.close()

    def _info(self) -> tuple[int, int]:
        state, received = _INFO.unpack(self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO.size))
        return state, received


def _copy(descriptor: int) -> socket.socket:
    """A descriptor of the same connection. Raises OSError, and leaves nothing, if the number is another thing's now."""
    copy = os.dup(descriptor)
    try:
        found = socket.socket(fileno=copy)
    except OSError:
        os.close(copy)
        raise
    if found.family not in _FAMILIES:
        found.close()
        raise OSError("not a TCP connection")
    return found
