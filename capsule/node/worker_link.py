"""The node's end of the link to one worker: two sockets that it drains whenever ZeroMQ says that something happened."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import zmq

from capsule.sockets import Drain
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
NEVER_AGAIN = 2**30 // 1000
"""Milliseconds until ZeroMQ would connect again: a worker that broke its link does not come back."""


class Door:
    """One DEALER socket, connected to a worker's `ipc://` endpoint."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        loop: asyncio.AbstractEventLoop,
        limits: Limits,
        on_envelope: OnEnvelope,
        on_broken: OnBroken,
    ) -> None:
        self._limits = limits
        self._on_envelope = on_envelope
        self._on_broken = on_broken
        self._ending = False
        self._socket = context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.RCVHWM, HIGH_WATER)
        self._socket.setsockopt(zmq.MAXMSGSIZE, limits.message_bytes)
        self._socket.setsockopt(zmq.RECONNECT_IVL, NEVER_AGAIN)
        self._drain = Drain(self._socket, loop, self._take)
        self._monitor = Drain(self._socket.get_monitor_socket(zmq.EVENT_DISCONNECTED), loop, self._hung_up)
        self.disconnected = loop.create_future()

    def connect(self, path: Path) -> None:
        """Connect to the socket at a path and begin to read."""
        self._socket.connect(f"ipc://{path}")
        self._drain.start()
        self._monitor.start()

    def send(self, envelope: Envelope) -> None:
        """Send at once. Raises LocalProtocolError if it cannot be encoded; a worker that takes nothing is broken."""
        try:
            self._drain.send(encode(envelope, self._limits))
        except zmq.Again:
            self._on_broken(RemoteProtocolError("unexpected_message", "it takes no messages any more"))

    def pause(self) -> None:
        """Take no messages: ZeroMQ holds a few, then the worker's sends block."""
        if not self._ending:
            self._drain.pause()

    def resume(self) -> None:
        """Take messages again."""
        self._drain.resume()

    def end(self) -> None:
        """Take all from now on, and pause no more: the worker is dead. What the system still holds is on its way."""
        self._ending = True
        self.resume()

    def drain_rest(self) -> None:
        """Take all that has arrived."""
        self._drain.drain_rest()

    def close(self) -> None:
        """Disconnect. Idempotent."""
        if self._drain.closed:
            return
        self._socket.disable_monitor()
        self._monitor.close()
        self._drain.close()
        if not self.disconnected.done():
            self.disconnected.set_result(None)

    def _take(self, frames: list[Any]) -> bool:
        try:
            self._on_envelope(decode(frames, self._limits))
        except RemoteProtocolError as error:
            self._on_broken(error)
            return False
        return True

    def _hung_up(self, _event: list[Any]) -> bool:
        """The other end hung up. What it had sent has been queued before this is told."""
        if not self.disconnected.done():
            self.disconnected.set_result(None)
        return True
