"""The node's end of the link to one worker: two sockets that the event loop reads, and that never make it wait."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from capsule_protocol.codec import decode, encode
from capsule_protocol.errors import RemoteProtocolError
from capsule_protocol.framing import NEED_DATA, FrameBuffer, pack

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence
    from pathlib import Path

    from capsule_protocol.envelope import Buffer, Envelope
    from capsule_protocol.limits import Limits

OnEnvelope = Callable[["Envelope"], None]
OnBroken = Callable[[RemoteProtocolError], None]

READ_BYTES = 256 * 1024
"""What one turn of the loop takes from a worker at most: about what a Unix socket holds."""
MAX_WAITING = 1000
"""Messages that may wait for a worker which does not read; it is broken then."""
_CHUNKS = 1024
"""What one system call takes (IOV_MAX)."""


class Door:
    """One end of a Unix stream socket, the other being the worker's. Made unconnected."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, limits: Limits, on_envelope: OnEnvelope, on_broken: OnBroken
    ) -> None:
        self._loop = loop
        self._limits = limits
        self._on_envelope = on_envelope
        self._on_broken = on_broken
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self._incoming = FrameBuffer(limits)
        self._waiting: list[bytes] = []
        self._sent = 0
        self._reading = False
        self._paused = False
        self._ending = False
        self._delivering = False
        self._deaf = False
        self._closed = False
        self.disconnected: asyncio.Future[None] = loop.create_future()

    def connect(self, path: Path) -> None:
        """Connect to the socket at a path and begin to read. A worker that is dead already has hung up."""
        try:
            self._socket.connect(str(path))
        except OSError:
            self._hang_up()
        self._update()

    def send(self, envelope: Envelope) -> None:
        """Send at once, or as soon as the worker reads; a worker that has hung up gets nothing more.

        Raises LocalProtocolError if it cannot be encoded. A worker that reads nothing for long is broken.
        """
        chunks = pack(encode(envelope, self._limits), self._limits)
        if self._deaf or self.disconnected.done():
            return
        if not self._waiting:
            sent = self._send(chunks)
            if sent < sum(map(len, chunks)) and not self._deaf:
                self._waiting.append(b"".join(chunks)[sent:])
                self._loop.add_writer(self._socket, self._send_waiting)
        elif len(self._waiting) < MAX_WAITING:
            self._waiting.append(b"".join(chunks))
        else:
            self._on_broken(RemoteProtocolError("unexpected_message", "it takes no messages any more"))

    def pause(self) -> None:
        """Take no messages: the system holds a little, then the worker's sends block."""
        if not self._ending:
            self._paused = True
            self._update()

    def resume(self) -> None:
        """Take messages again."""
        self._paused = False
        self._update()
        if not self._delivering:
            self._loop.call_soon(self._deliver)

    def end(self) -> None:
        """Take all from now on, and pause no more: the worker is dead. What the system still holds is on its way."""
        self._ending = True
        self.resume()

    def drain_rest(self) -> None:
        """Take all that has arrived."""
        self._deliver()
        while not self.disconnected.done() and self._read():
            self._deliver()

    def close(self) -> None:
        """Disconnect. Idempotent."""
        self._closed = True
        self._hang_up()
        self._waiting.clear()
        self._socket.close()

    def _update(self) -> None:
        wanted = not (self._paused or self.disconnected.done())
        if wanted != self._reading:
            self._reading = wanted
            if wanted:
                self._loop.add_reader(self._socket, self._readable)
            else:
                self._loop.remove_reader(self._socket)

    def _readable(self) -> None:
        self._read()
        self._deliver()

    def _read(self) -> bool:
        """Whether there was something."""
        try:
            data = self._socket.recv(READ_BYTES)
        except BlockingIOError:
            return False
        except OSError:  # it died with something unread, which it never will read
            data = b""
        if not data:
            self._hang_up()
            return False
        self._incoming.feed(data)
        return True

    def _deliver(self) -> None:
        """Hand over all messages that are whole, until somebody pauses."""
        if self._delivering:
            return
        self._delivering = True
        try:
            while not (self._paused or self._closed) and (frames := self._incoming.next_message()) is not NEED_DATA:
                self._on_envelope(decode(frames, self._limits))
        except RemoteProtocolError as error:
            self._on_broken(error)
        finally:
            self._delivering = False

    def _send(self, chunks: Sequence[Buffer]) -> int:
        """How many bytes the system took."""
        try:
            return self._socket.sendmsg(chunks[:_CHUNKS])
        except BlockingIOError:
            return 0
        except OSError:  # it has hung up; its last words may be there still
            self._deaf = True
            return 0

    def _send_waiting(self) -> None:
        while self._waiting and not self._deaf:
            sent = self._send([memoryview(self._waiting[0])[self._sent :]])
            if not sent and not self._deaf:
                return
            self._sent += sent
            if sent and self._sent == len(self._waiting[0]):
                del self._waiting[0]
                self._sent = 0
        self._waiting.clear()
        self._loop.remove_writer(self._socket)

    def _hang_up(self) -> None:
        """No more will come. What had come is handed over, as soon as nobody pauses."""
        if not self.disconnected.done():
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
            self._reading = False
            self.disconnected.set_result(None)
