"""One of the worker's sockets: bound in the box's directory, connected to once, by the node.

A Unix stream socket with the protocol's framing, and no thread of a messaging library behind it: the thread that says
something hands it to the system itself, and the one that waits is woken by the system.
"""

from __future__ import annotations

import fcntl
import select
import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING

from capsule_protocol.framing import NEED_DATA, FrameBuffer, pack

if TYPE_CHECKING:
    from collections.abc import Sequence

    from capsule_protocol.envelope import Buffer
    from capsule_protocol.limits import Limits

PRIVATE = 64
"""The worker's own descriptors begin here, out of the way of user code that counts on low numbers."""

READ_BYTES = 64 * 1024
_CHUNKS = 1024
"""What one system call takes (IOV_MAX)."""


class Channel:
    """Made before the node can connect; usable after `accept`. One thread at a time reads, one sends."""

    def __init__(self, path: str, limits: Limits) -> None:
        self._limits = limits
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.settimeout(None)  # a module of the environment may have set another default
        self._listener.bind(path)
        self._listener.listen(1)
        self._socket: socket.socket
        self._incoming = FrameBuffer(limits)
        self._poll = select.poll()

    def accept(self) -> None:
        """Wait for the node to connect."""
        with ExitStack() as stack:
            stack.enter_context(self._listener)
            accepted = stack.enter_context(self._listener.accept()[0])
            self._socket = socket.socket(fileno=fcntl.fcntl(accepted, fcntl.F_DUPFD_CLOEXEC, PRIVATE))
        self._socket.settimeout(None)
        self._poll.register(self._socket, select.POLLIN)

    def fileno(self) -> int:
        """The descriptor; it is readable when something new has come, not when something is left of what came."""
        return self._socket.fileno()

    def send(self, frames: Sequence[Buffer]) -> None:
        """Send a message; waits while the node does not read. Raises OSError when the node has gone."""
        chunks = [memoryview(chunk) for chunk in pack(frames, self._limits)]
        while chunks:
            sent = self._socket.sendmsg(chunks[:_CHUNKS])
            while chunks and sent >= len(chunks[0]):
                sent -= len(chunks.pop(0))
            if sent:
                chunks[0] = chunks[0][sent:]

    def wait(self) -> None:
        """Wait until something has come."""
        self._poll.poll()

    def receive(self) -> list[bytes] | None:
        """The frames of the next message, None if it has not come whole. Raises EOFError when the node has gone."""
        while (frames := self._incoming.next_message()) is NEED_DATA:
            try:
                data = self._socket.recv(READ_BYTES, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return None
            if not data:
                raise EOFError("the node has gone")
            self._incoming.feed(data)
        return frames

    def close(self) -> None:
        """What was sent stays readable for the node."""
        self._socket.close()
