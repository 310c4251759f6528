"""One of the worker's sockets: bound in the box's directory, connected to once, by the node.

Where boxes outlive their nodes it is lasting: when one node has hung up, and all that it had sent has been read, the
next one's connection takes its place.

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
LARGE_READ_BYTES = 2**20
"""When so much comes as was asked for, more may be there."""
_CHUNKS = 1024
"""What one system call takes (IOV_MAX)."""
_BACKLOG = 16
"""Nodes that may come one after another while this end has no time for them; each has ended before the next."""


def out_of_the_way(descriptor: int) -> int:
    """The same, under a number of the worker's own; the number that it had is free again."""
    try:
        return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, PRIVATE)
    finally:
        os.close(descriptor)


class Channel:
    """Made before the node can connect; usable after `accept`. One thread at a time reads, one sends."""

    def __init__(self, path: str, limits: Limits, *, lasting: bool = False) -> None:
        self._limits = limits
        self._lasting = lasting
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.settimeout(None)  # a module of the environment may have set another default
        self._listener.bind(path)
        self._listener.listen(_BACKLOG if lasting else 1)
        self._socket: socket.socket
        self._incoming = FrameBuffer(limits)
        self._unsent: deque[list[memoryview]] = deque()
        self._sending = False
        self._poll = select.poll()
        self._away = False
        self._size = READ_BYTES
        self.nodes = 0
        """How many have connected, one after another."""
        self.deaf = False
        """The node does not hear any more, though something of what it said may be left."""

    def accept(self) -> None:
        """Wait for the node to connect."""
        accepted, _ = self._listener.accept()
        if self._lasting:
            self._listener = socket.socket(fileno=out_of_the_way(self._listener.detach()))
            self._listener.setblocking(False)  # noqa: FBT003 (the method takes it by position only)
        else:
            self._listener.close()
        self._take(accepted)

    def fileno(self) -> int:
        """The descriptor; it is readable when something new has come, not when something is left of what came."""
        return self._listener.fileno() if self._away else self._socket.fileno()

    def send(self, frames: Sequence[Buffer]) -> bool:
        """Send a message; waits while the node does not read. Raises OSError when the node has gone.

        False: called in the midst of itself (the garbage collector ran user code) it has left that to the outer call.
        """
        if self.deaf:
            return True
        self._unsent.append([memoryview(chunk) for chunk in pack(frames, self._limits)])
        if self._sending:
            return False
        while self._unsent:
            self._sending = True
            try:
                self._write(self._unsent.popleft())
            except OSError:
                if not self._lasting:
                    raise
                self.deaf = True
                self._unsent.clear()
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
            data = self._read()
            if data is None:
                return None
            self._incoming.feed(data)
        return frames

    def _read(self) -> bytes | None:
        """What has come, None for nothing."""
        while not (self._away and not self._take_next()):
            try:
                data = self._socket.recv(self._size, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return None
            except ConnectionResetError:  # it ended with something unread
                data = b""
            if data:
                self._size = LARGE_READ_BYTES if len(data) == self._size else READ_BYTES
                return data
            self._hang_up()
        return None

    def _take(self, accepted: socket.socket) -> None:
        self._socket = socket.socket(fileno=out_of_the_way(accepted.detach()))
        self._socket.settimeout(None)
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)
        self._away = self.deaf = False
        self.nodes += 1

    def _take_next(self) -> bool:
        """Whether the next node has connected."""
        try:
            accepted, _ = self._listener.accept()
        except OSError:
            return False
        self._take(accepted)
        return True

    def _hang_up(self) -> None:
        if not self._lasting:
            raise EOFError("the node has gone")
        self._socket.close()
        self._away = self.deaf = True
        self._incoming = FrameBuffer(self._limits)  # half a message is none
        self._poll = select.poll()
        self._poll.register(self._listener, select.POLLIN)

    def close(self) -> None:
        """What was sent stays readable for the node."""
        self._socket.close()
