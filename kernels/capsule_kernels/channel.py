"""One of the worker's sockets: bound in the box's directory, connected to once, by the node.

A Unix stream socket with the protocol's framing, and no thread of a messaging library behind it: the thread that says
something hands it to the system itself, and the one that waits is woken by the system.
"""

from __future__ import annotations

import fcntl
import os
import select
import socket
from collections import deque
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


def out_of_the_way(descriptor: int) -> int:
    """The same, under a number of the worker's own; the number that it had is free again."""
    try:
        return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, PRIVATE)
    finally:
        os.close(descriptor)


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
        self._unsent: deque[list[memoryview]] = deque()
        self._sending = False
        self._poll = select.poll()

    def accept(self) -> None:
        """Wait for the node to connect."""
        with self._listener:
            accepted, _ = self._listener.accept()
            self._socket = socket.socket(fileno=out_of_the_way(accepted.detach()))
        self._socket.settimeout(None)
        self._poll.register(self._socket, select.POLLIN)

    def fileno(self) -> int:
        """The descriptor; it is readable when something new has come, not when something is left of what came."""
        return self._socket.fileno()

    def send(self, frames: Sequence[Buffer]) -> bool:
        """Send a message; waits while the node does not read. Raises OSError when the node has gone.

        False: called in the midst of itself (the garbage collector ran user code) it has left that to the outer call.
        """
        self._unsent.append([memoryview(chunk) for chunk in pack(frames, self._limits)])
        if self._sending:
            return False
        while self._unsent:
            self._sending = True
            try:
                self._write(self._unsent.popleft())
            finally:
                self._sending = False
        return True

    def _write(self, chunks: list[memoryview]) -> None:
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
