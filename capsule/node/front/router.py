"""The ZeroMQ socket of a TCP listener: what it hands over, and what it tells of connections."""

from __future__ import annotations

import struct
from typing import Any, Final

import zmq

from capsule.sockets import Drain

CAME, WENT = int(zmq.EVENT_ACCEPTED), int(zmq.EVENT_DISCONNECTED)
EARLY = int(zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL)
"""Not EVENT_HANDSHAKE_FAILED_PROTOCOL: who asks for that has ZeroMQ keep, for ever, a connection with a bad message."""
EVENT: Final = struct.Struct("=HI")
"""An event and its value, which is ZeroMQ's descriptor where a connection came or went."""
MAX_EVENTS = 100_000
"""Events that may wait for the node; then ZeroMQ waits."""
CATCH_UP = 16
"""Batches of messages that are taken at once before somebody is judged by what is left."""


class Router(Drain):
    """Keeps the first frame of a message, which knows from where and from whom it came."""

    first: zmq.Frame

    def watch(self) -> zmq.Socket[bytes]:
        """A socket that tells who comes and goes, and who fails. Its owner closes it."""
        address = f"inproc://capsule.events.{id(self)}"
        self._socket.monitor(address, CAME | WENT | EARLY)
        context: zmq.Context[zmq.Socket[bytes]] = self._socket.context
        watching = context.socket(zmq.PAIR)
        watching.setsockopt(zmq.RCVHWM, MAX_EVENTS)
        watching.connect(address)
        return watching

    def catch_up(self) -> None:
        """Take what has arrived; if others send on and on, not all of that."""
        for _ in range(CATCH_UP):
            if self.closed or self.paused or not self._readable():
                return
            self._drain()

    def unbind(self, address: str) -> None:
        """Listen no more."""
        self._socket.unbind(address)

    def disable_monitor(self) -> None:
        """Have ZeroMQ tell no more of connections."""
        self._socket.disable_monitor()

    def _receive(self) -> list[Any]:
        self.first = self._socket.recv(zmq.NOBLOCK, copy=False)
        frames: list[Any] = [self.first.bytes]
        while self._socket.getsockopt(zmq.RCVMORE):
            frames.append(self._socket.recv(zmq.NOBLOCK))
        return frames


def mark_of(frame: zmq.Frame) -> str:
    """What the authenticator said of who sent a message; without encryption it was not asked."""
    try:
        return str(frame.get("User-Id"))
    except zmq.ZMQError:
        return ""
