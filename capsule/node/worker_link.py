"""The node's end of the link to one worker: two sockets that it drains whenever ZeroMQ says that something happened."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import zmq

from capsule_protocol.codec import decode, encode
from capsule_protocol.errors import RemoteProtocolError

if TYPE_CHECKING:
    import asyncio
    from pathlib import Path

    from capsule_protocol.envelope import Envelope
    from capsule_protocol.limits import Limits

OnEnvelope = Callable[["Envelope"], None]
OnBroken = Callable[[RemoteProtocolError], None]

HIGH_WATER = 4
"""Messages that ZeroMQ may hold for a node that does not read. It counts no bytes, and each may be of message_bytes, so
they are few. What it has not taken in when the worker dies is lost; more would save more of a dead worker's last words.
"""
BATCH = 256
"""Messages taken in one go before other callbacks of the loop have their turn."""
# Plain numbers: arithmetic with enumerations costs more than the calls that it is for.
_EVENTS, _RCVMORE = zmq.EVENTS, zmq.RCVMORE
_POLLIN, _NOBLOCK, _SNDMORE = int(zmq.POLLIN), int(zmq.NOBLOCK), int(zmq.NOBLOCK | zmq.SNDMORE)

NEVER_AGAIN = 2**30 // 1000
"""Milliseconds until ZeroMQ would connect again: a worker that broke its link does not come back."""


class Door:
    """One DEALER socket, connected to a worker's `ipc://` endpoint.

    ZeroMQ's descriptor is edge-triggered: it tells of a change once, and any call on the socket may swallow it. So
    every wake-up drains the socket, and every send looks again.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        loop: asyncio.AbstractEventLoop,
        limits: Limits,
        on_envelope: OnEnvelope,
        on_broken: OnBroken,
    ) -> None:
        self._loop = loop
        self._limits = limits
        self._on_envelope = on_envelope
        self._on_broken = on_broken
        self._paused = False
        self._ending = False
        self._closed = False
        self._scheduled = False
        self._socket = context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.RCVHWM, HIGH_WATER)
        self._socket.setsockopt(zmq.MAXMSGSIZE, limits.message_bytes)
        self._socket.setsockopt(zmq.RECONNECT_IVL, NEVER_AGAIN)
        self._descriptor: int = self._socket.FD
        self._monitor = self._socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        self._monitor_descriptor: int = self._monitor.FD
        self.disconnected = loop.create_future()

    def connect(self, path: Path) -> None:
        """Connect to the socket at a path and begin to read."""
        self._socket.connect(f"ipc://{path}")
        self._loop.add_reader(self._descriptor, self._drain)
        self._loop.add_reader(self._monitor_descriptor, self._watch)
        self._watch()  # a descriptor tells of changes only since its socket was last looked at

    def send(self, envelope: Envelope) -> None:
        """Send at once. Raises LocalProtocolError if it cannot be encoded; a worker that takes nothing is broken."""
        frames = encode(envelope, self._limits)
        try:
            for frame in frames[:-1]:
                self._socket.send(frame, _SNDMORE)
            self._socket.send(frames[-1], _NOBLOCK)
        except zmq.Again:
            self._on_broken(RemoteProtocolError("unexpected_message", "it takes no messages any more"))
        self._look_again()

    def pause(self) -> None:
        """Take no messages: ZeroMQ holds a few, then the worker's sends block."""
        self._paused = not self._ending

    def resume(self) -> None:
        """Take messages again."""
        self._paused = False
        self._look_again()

    def end(self) -> None:
        """Take all from now on, and pause no more: the worker is dead. What the system still holds is on its way."""
        self._ending = True
        self.resume()

    def drain_rest(self) -> None:
        """Take all that has arrived."""
        while not self._closed and _readable(self._socket):
            self._drain()

    def close(self) -> None:
        """Disconnect. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self._loop.remove_reader(self._descriptor)
        self._loop.remove_reader(self._monitor_descriptor)
        self._socket.disable_monitor()
        self._monitor.close(0)
        self._socket.close(0)
        if not self.disconnected.done():
            self.disconnected.set_result(None)

    def _look_again(self) -> None:
        if not self._scheduled and not self._closed and _readable(self._socket):
            self._scheduled = True
            self._loop.call_soon(self._drain_scheduled)

    def _drain_scheduled(self) -> None:
        self._scheduled = False
        self._drain()

    def _drain(self) -> None:
        socket = self._socket
        for _ in range(BATCH):
            # A handler may have closed or paused this door. The events are read even so, or the descriptor stays hot.
            if self._closed or not _readable(socket) or self._paused:
                return
            try:
                self._on_envelope(decode(_receive(socket), self._limits))
            except RemoteProtocolError as error:
                self._on_broken(error)
                return
        self._look_again()

    def _watch(self) -> None:
        """The other end hung up. What it had sent has been queued before this is told."""
        while not self._closed and _readable(self._monitor):
            self._monitor.recv_multipart(_NOBLOCK)
            if not self.disconnected.done():
                self.disconnected.set_result(None)


def _readable(socket: zmq.Socket[bytes]) -> bool:
    return socket.getsockopt(_EVENTS) & _POLLIN != 0  # type: ignore[operator]  # this option is a number


def _receive(socket: zmq.Socket[bytes]) -> list[Any]:
    frames: list[Any] = [socket.recv(_NOBLOCK)]
    while socket.getsockopt(_RCVMORE):
        frames.append(socket.recv(_NOBLOCK))
    return frames
