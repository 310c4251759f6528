"""A stream socket in an event loop: whole messages come out of it, and it never makes the loop wait."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from capsule_protocol.errors import RemoteProtocolError
from capsule_protocol.framing import NEED_DATA, FrameBuffer, pack

if TYPE_CHECKING:
    from collections.abc import Sequence

    from capsule_protocol.envelope import Buffer
    from capsule_protocol.limits import Limits

OnFrames = Callable[[list[bytes]], None]
OnBroken = Callable[[RemoteProtocolError], None]

SMALL_READ = 65_536
LARGE_READ = 2**20
BATCH = 256
"""Messages handed over in one go before other callbacks of the loop have their turn."""
MAX_WAITING = 1000
"""Messages that may wait for a peer which does not read, of either kind."""
MAX_WAITING_BYTES = 2**28
"""Bytes that may wait for it, and the message that goes beyond: few large ones hold memory as many small ones do."""
_CHUNKS = 1024
"""What one system call takes (IOV_MAX)."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much may wait for the peer. From `quiet_bytes` on it is not listened to, until it has read half of that."""

    messages: int = MAX_WAITING
    bytes: int = MAX_WAITING_BYTES
    quiet_bytes: int = sys.maxsize


NO_BOUNDS = Bounds(sys.maxsize, sys.maxsize)
DEFAULT_BOUNDS = Bounds()


class PeerBusyError(Exception):
    """Too many messages, or bytes, wait for the peer already; this message was not taken."""


class Stream:
    """Owns a socket, which it reads from `start` on.

    `disconnected` is resolved when nothing more will come: what had come is handed over first, unless somebody pauses.
    `on_broken` is told of a message that cannot be framed; the next one is read all the same. A peer that does not read
    the answers need not ask: it is not listened to.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        owned: socket.socket,
        limits: Limits,
        on_frames: OnFrames,
        on_broken: OnBroken,
        bounds: Bounds = DEFAULT_BOUNDS,
    ) -> None:
        self._loop = loop
        self._limits = limits
        self._on_frames = on_frames
        self._on_broken = on_broken
        self._bounds = bounds
        self._held = 0  # bytes that wait for the peer
        self._empty: asyncio.Future[None] | None = None  # resolved when none do, if somebody waits for that
        owned.setblocking(False)  # noqa: FBT003 (the function takes it by position only)
        owned.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**20)
        self._socket = owned
        self._incoming = FrameBuffer(limits)
        self._waiting: deque[Buffer] = deque()
        self._bulk: deque[Buffer] = deque()
        self._size = SMALL_READ
        self._reading = False
        self._flushing = False  # somebody will call `_flush`
        self._writing = False  # the loop will, as soon as the system takes more
        self._paused = False
        self._stalled = False  # too much is held
        self._behind = False  # whole messages are here that no turn of the loop has handed over yet
        self._delivering = False
        self._deaf = False
        self.closed = False
        self.disconnected: asyncio.Future[None] = loop.create_future()

    def connect(self, path: str) -> None:
        """Connect to the Unix socket at this path and begin to read; if nobody is there it has hung up already."""
        try:
            self._socket.connect(path)
        except OSError:
            self._hang_up()
        self.start()

    def start(self) -> None:
        """Begin to read."""
        self._update()

    def send(self, frames: Sequence[Buffer]) -> None:
        """Send at once, or as soon as the peer reads; one that has hung up gets nothing more.

        Raises LocalProtocolError for what is over a limit, PeerBusyError when too much waits.
        """
        chunks = pack(frames, self._limits)
        if self._waiting or self._bulk:
            self._enqueue(chunks, self._waiting)
        elif not (self._deaf or self.disconnected.done()):
            sent = self._send(chunks)
            if sent < sum(map(len, chunks)) and not self._deaf:
                self._hold(memoryview(b"".join(chunks))[sent:], self._waiting)
                self._flush_when_writable()

    def post(self, frames: Sequence[Buffer], *, bulk: bool = False) -> None:
        """Send together with what else is posted in this turn of the loop; what is no bulk goes first.

        Raises as `send` does.
        """
        self._enqueue(pack(frames, self._limits), self._bulk if bulk else self._waiting)
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def pause(self) -> None:
        """Take no messages: the system holds a little, then the peer's sends have to wait."""
        self._paused = True
        self._update()

    def resume(self) -> None:
        """Take messages again."""
        self._paused = False
        self._update()
        self._loop.call_soon(self._deliver)

    async def flushed(self) -> None:
        """Wait until the system has taken what was sent, or the peer has hung up."""
        while self._held and not self.disconnected.done():
            self._empty = self._empty or self._loop.create_future()
            await asyncio.shield(self._empty)

    def drain_rest(self) -> None:
        """Take all that has arrived."""
        self._deliver()
        while not self.disconnected.done() and (self._behind or self._read()):
            self._deliver()

    def close(self) -> None:
        """Say what can be said at once, and disconnect. Idempotent."""
        if not self.closed:
            if not (self._deaf or self.disconnected.done()):
                self._flush()
            self.closed = True
            self._hang_up()
            self._forget_waiting()
            self._socket.close()

    def _update(self) -> None:
        wanted = not (self._paused or self._stalled or self.disconnected.done())
        if wanted != self._reading:
            self._reading = wanted
            if wanted:
                self._loop.add_reader(self._socket, self._readable)
            else:
                self._loop.remove_reader(self._socket)

    def _readable(self) -> None:
        if not self._behind:
            self._read()
            self._deliver()

    def _read(self) -> bool:
        """Whether there was something."""
        try:
            data = self._socket.recv(self._size)
        except BlockingIOError:
            return False
        except OSError:  # it went with something unread, which it never will read
            data = b""
        if not data:
            self._hang_up()
            return False
        self._size = LARGE_READ if len(data) == self._size else SMALL_READ
        self._incoming.feed(data)
        return True

    def _deliver(self) -> None:
        """Hand over what is whole, until somebody pauses or others have to have their turn."""
        if self._delivering:
            return
        self._delivering, self._behind = True, False
        try:
            for _ in range(BATCH):
                if self._paused or self._stalled or self.closed or not self._deliver_one():
                    return
            self._behind = True
            self._loop.call_soon(self._deliver)
        finally:
            self._delivering = False

    def _deliver_one(self) -> bool:
        try:
            frames = self._incoming.next_message()
        except RemoteProtocolError as error:
            self._on_broken(error)
            return True
        if frames is NEED_DATA:
            return False
        self._on_frames(frames)
        return True

    def _enqueue(self, chunks: Sequence[Buffer], queue: deque[Buffer]) -> None:
        if self._deaf or self.disconnected.done():
            return
        if len(queue) >= self._bounds.messages or self._held >= self._bounds.bytes:
            raise PeerBusyError
        self._hold(b"".join(chunks), queue)

    def _hold(self, data: Buffer, queue: deque[Buffer]) -> None:
        queue.append(data)
        self._held += len(data)
        if self._held > self._bounds.quiet_bytes:
            self._stalled = True
            self._update()

    def _let_go(self, size: int) -> None:
        self._held -= size
        if self._empty is not None and not self._held:
            self._wake()
        if self._stalled and self._held <= self._bounds.quiet_bytes // 2:
            self._stalled = False
            self._update()
            self._loop.call_soon(self._deliver)

    def _send(self, chunks: Sequence[Buffer]) -> int:
        """How many bytes the system took."""
        try:
            return self._socket.sendmsg(chunks[:_CHUNKS])
        except BlockingIOError:
            return 0
        except OSError:  # it has hung up; its last words may be there still
            self._deaf = True
            self._forget_waiting()
            return 0

    def _flush(self) -> None:
        self._flushing = False
        queue = self._waiting
        while queue or self._bulk:
            if not queue:
                queue.append(self._bulk.popleft())  # from here on it is under way, and nothing overtakes it
            sent = self._send(list(islice(queue, _CHUNKS)))
            if not sent:
                break
            self._let_go(sent)
            while queue and sent >= len(queue[0]):
                sent -= len(queue.popleft())
            if sent:
                queue[0] = memoryview(queue[0])[sent:]
        if queue:
            self._flush_when_writable()
        elif self._writing:
            self._writing = False
            self._loop.remove_writer(self._socket)

    def _forget_waiting(self) -> None:
        self._waiting.clear()
        self._bulk.clear()
        self._let_go(self._held)

    def _flush_when_writable(self) -> None:
        if not self.disconnected.done():
            self._flushing = True
            if not self._writing:
                self._writing = True
                self._loop.add_writer(self._socket, self._flush)

    def _wake(self) -> None:
        if self._empty is not None:
            self._empty.set_result(None)
            self._empty = None

    def _hang_up(self) -> None:
        if not self.disconnected.done():
            self._wake()
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
            self._reading = self._writing = False
            self.disconnected.set_result(None)
