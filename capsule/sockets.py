"""A ZeroMQ socket in an event loop: drained whenever ZeroMQ says that something happened."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import zmq

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence

    from capsule_protocol.envelope import Buffer

BATCH = 256
"""Messages taken in one go before other callbacks of the loop have their turn."""
# Plain numbers: arithmetic with enumerations costs more than the calls that it is for.
_EVENTS, _RCVMORE = zmq.EVENTS, zmq.RCVMORE
_POLLIN, _NOBLOCK, _SNDMORE = int(zmq.POLLIN), int(zmq.NOBLOCK), int(zmq.NOBLOCK | zmq.SNDMORE)

OnFrames = Callable[[list[Any]], bool]
"""Takes the frames of one message; False: stop until the next wake-up."""


class Drain:
    """Reads one socket, which it owns from here on.

    ZeroMQ's descriptor is edge-triggered: it tells of a change once, and any call on the socket may swallow it. So
    every wake-up drains the socket, and every send looks again.
    """

    def __init__(self, socket: zmq.Socket[bytes], loop: asyncio.AbstractEventLoop, on_frames: OnFrames) -> None:
        self._socket = socket
        self._loop = loop
        self._on_frames = on_frames
        self._descriptor: int = socket.FD
        self._scheduled = False
        self.paused = False
        self.closed = False

    def start(self) -> None:
        """Begin to read."""
        self._loop.add_reader(self._descriptor, self._drain)
        self.look_again()

    def send(self, frames: Sequence[Buffer], *, copy: bool = True) -> None:
        """Send at once; raises zmq.Again when the socket takes no more, and what else ZeroMQ says.

        Without `copy` the last frame, if it is large, is held on to until it has been sent.
        """
        try:
            for frame in frames[:-1]:
                self._socket.send(frame, _SNDMORE)
            self._socket.send(frames[-1], _NOBLOCK, copy)
        finally:
            self.look_again()

    def pause(self) -> None:
        """Take no messages."""
        self.paused = True

    def resume(self) -> None:
        """Take messages again."""
        self.paused = False
        self.look_again()

    def drain_rest(self) -> None:
        """Take all that has arrived."""
        while not self.closed and self._readable():
            self._drain()

    def close(self, linger: int = 0) -> None:
        """Stop reading and close the socket; ZeroMQ has `linger` milliseconds for what was not sent. Idempotent."""
        if not self.closed:
            self.closed = True
            self._loop.remove_reader(self._descriptor)
            self._socket.close(linger)

    def look_again(self) -> None:
        """Have what may have arrived unnoticed read soon."""
        if not self._scheduled and not self.closed and self._readable():
            self._scheduled = True
            self._loop.call_soon(self._drain_scheduled)

    def _drain_scheduled(self) -> None:
        self._scheduled = False
        self._drain()

    def _drain(self) -> None:
        for _ in range(BATCH):
            # A handler may have closed or paused this. The events are read even so, or the descriptor stays hot.
            if self.closed or not self._readable() or self.paused:
                return
            if not self._on_frames(self._receive()):
                return
        self.look_again()

    def _readable(self) -> bool:
        return self._socket.getsockopt(_EVENTS) & _POLLIN != 0  # type: ignore[operator]  # this option is a number

    def _receive(self) -> list[Any]:
        socket = self._socket
        frames: list[Any] = [socket.recv(_NOBLOCK)]
        while socket.getsockopt(_RCVMORE):
            frames.append(socket.recv(_NOBLOCK))
        return frames
