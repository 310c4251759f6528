"""The node's end of one of the two sockets of a worker."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from capsule.stream import PeerBusyError, Stream
from capsule_protocol.codec import decode, encode
from capsule_protocol.errors import RemoteProtocolError

if TYPE_CHECKING:
    import asyncio
    from pathlib import Path

    from capsule_protocol.envelope import Envelope
    from capsule_protocol.limits import Limits

OnEnvelope = Callable[["Envelope"], None]
OnBroken = Callable[[RemoteProtocolError], None]


class Door:
    """Envelopes over a Unix stream socket that the worker has bound. Made unconnected."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, limits: Limits, on_envelope: OnEnvelope, on_broken: OnBroken
    ) -> None:
        self._limits = limits
        self._on_envelope = on_envelope
        self._on_broken = on_broken
        self._ending = False
        self._stream = Stream(loop, socket.socket(socket.AF_UNIX), limits, self._take, on_broken)
        self.disconnected = self._stream.disconnected

    def connect(self, path: Path) -> None:
        """Connect to the socket at a path and begin to read. A worker that is dead already has hung up."""
        self._stream.connect(str(path))

    def send(self, envelope: Envelope) -> None:
        """Send at once, or as soon as the worker reads; one that takes nothing for long is broken.

        Raises LocalProtocolError if it cannot be encoded.
        """
        try:
            self._stream.send(encode(envelope, self._limits))
        except PeerBusyError:
            self._on_broken(RemoteProtocolError("unexpected_message", "it takes no messages any more"))

    def pause(self) -> None:
        """Take no messages: the system holds a little, then the worker's sends block."""
        if not self._ending:
            self._stream.pause()

    def resume(self) -> None:
        """Take messages again."""
        self._stream.resume()

    def end(self) -> None:
        """Take all from now on, and pause no more: the worker is dead. What the system still holds is on its way."""
        self._ending = True
        self.resume()

    def drain_rest(self) -> None:
        """Take all that has arrived."""
        self._stream.drain_rest()

    def close(self) -> None:
        """Disconnect. Idempotent."""
        self._stream.close()

    def _take(self, frames: list[bytes]) -> None:
        try:
            self._on_envelope(decode(frames, self._limits))
        except RemoteProtocolError as error:
            self._on_broken(error)
