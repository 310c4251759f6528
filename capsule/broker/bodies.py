"""The bodies of calls: bytes that come with a request or go with its answer, under credit, as many as are allowed."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from capsule_protocol.errors import CapabilityFailed, RemoteProtocolError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from capsule.broker.sdk import Chunk
    from capsule_protocol.messages.base import Failure

WINDOW = 4 * 2**20
"""Bytes of a request's body that may be on their way."""
INLINE = 256 * 1024
"""So much of an answer's body waits to travel with the reply."""
LATE = 0.02
"""Seconds after which it waits no longer: the call goes on, and tells of something while it does."""
CRUMBS = 64 * 1024
"""Pieces of a request's body are put together up to this."""
PIECE = 2**20
"""Bytes of one message of a stream."""


class Inlet:
    """The body of a request, as the provider reads it; the session's side feeds it."""

    def __init__(self, first: Sequence[Chunk], *, more: bool, give_credit: Callable[[int], None]) -> None:
        self._pieces: deque[bytes] = deque(each for each in map(bytes, first) if each)
        self._more = more
        self._give_credit = give_credit
        self._credit = 0
        self._error: CapabilityFailed | None = None
        self._woken = asyncio.Event()
        self.limit: int | None = None
        self.count: Callable[[int], None] = _nothing
        self.size = sum(map(len, self._pieces))
        """Bytes that have come."""
        self._read = 0

    def add(self, size: int) -> None:
        """So much more of the request, be it of its arguments. Raises CapabilityFailed `capability_too_large`."""
        self._read += size
        if self.limit is not None and self._read > self.limit:
            raise _too_large("request", self.limit)

    @property
    def more(self) -> bool:
        """Whether some of it may be on its way."""
        return self._more

    def feed(self, buffers: Sequence[Chunk]) -> None:
        """More of it. Raises RemoteProtocolError if nobody had asked for so much."""
        size = sum(map(len, buffers))
        if not self._more or size > self._credit:
            raise RemoteProtocolError("credit_exceeded", f"a call carries {size} bytes more than there is credit for")
        self._credit -= size
        self.size += size
        if size:  # in crumbs it would take far more room than its size
            data = b"".join(buffers)
            small = self._pieces and len(self._pieces[-1]) + size <= CRUMBS
            self._pieces.append(self._pieces.pop() + data if small else data)
        self._woken.set()

    def end(self, error: Failure | None = None) -> None:
        """That was all. With an error it is not whole, and reading it fails."""
        self._more = False
        if error is not None:
            self._error = CapabilityFailed("capability_failed", f"the body is not whole: {error.message[:200]}")
        self._woken.set()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            while self._pieces:
                piece = self._pieces.popleft()
                self.add(len(piece))
                self.count(len(piece))
                yield piece
            if self._error is not None:
                raise self._error
            if not self._more:
                return
            self._refill()
            self._woken.clear()
            await self._woken.wait()

    def _refill(self) -> None:
        if self._credit <= WINDOW // 2:
            size = WINDOW - self._credit
            self._credit += size
            self._give_credit(size)


class Outlet:
    """The body of an answer, as the provider hands it over. What is small enough travels with the reply."""

    def __init__(self, window: int, send: Callable[[tuple[Chunk, ...]], None]) -> None:
        self._credit = window
        self._send = send
        self._held: deque[Chunk] = deque()
        self._holding = 0
        self._woken = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._late = False
        self.limit: int | None = None
        self.count: Callable[[int], None] = _nothing
        self.size = 0
        """Bytes that were handed over."""
        self._beside = 0
        self.keep = 0
        """So many of them are kept as copies, unless there are more."""
        self.copies: list[bytes] = []

    async def send(self, chunk: Chunk) -> None:
        """Hand over a part; waits while the session has no room. Raises CapabilityFailed `capability_too_large`."""
        self.size += len(chunk)
        self._count(len(chunk))
        if self.keep:
            self._copy(chunk)
        self._held.append(chunk)
        self._holding += len(chunk)
        if self._holding > INLINE:
            await self._flush()
        elif self._timer is None and not self._late:
            self._timer = asyncio.get_running_loop().call_later(LATE, self._no_longer)
        elif self._late:
            self._push()

    def add(self, size: int) -> None:
        """So much counts with it: the fields of the answer. Raises CapabilityFailed `capability_too_large`."""
        self._beside += size
        self._count(size)

    def _count(self, size: int) -> None:
        if self.limit is not None and self.size + self._beside > self.limit:
            raise _too_large("response", self.limit)
        self.count(size)

    def credit(self, size: int) -> None:
        """The session has room for so much more."""
        self._credit += size
        self._woken.set()
        if self._late:
            self._push()

    def close(self) -> None:
        """The call is over: nothing is sent any more. Idempotent."""
        self._late = False
        self._held.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _copy(self, chunk: Chunk) -> None:
        if self.size <= self.keep:
            self.copies.append(bytes(chunk))
        else:
            self.copies.clear()

    def rest(self) -> tuple[Chunk, ...]:
        """What travels with the reply."""
        rest = tuple(self._held)
        self.close()
        return rest

    async def _flush(self) -> None:
        self._push()
        while self._held:
            self._woken.clear()
            await self._woken.wait()
            self._push()

    def _no_longer(self) -> None:
        self._late = True
        self._push()

    def _push(self) -> None:
        """Send what there is room for."""
        while self._held and self._credit > 0:
            size = min(PIECE, self._credit)
            view = memoryview(self._held[0])
            piece, rest = view[:size], view[size:]
            self._credit -= len(piece)
            self._holding -= len(piece)
            self._send((piece,))
            if rest:
                self._held[0] = rest
            else:
                self._held.popleft()


def _nothing(_size: int) -> None:
    """Nobody counts."""


def _too_large(what: str, limit: int) -> CapabilityFailed:
    details = {"limit": f"{what}_bytes", "allowed": limit}
    return CapabilityFailed("capability_too_large", f"the {what} has more than {limit} bytes", details=details)
