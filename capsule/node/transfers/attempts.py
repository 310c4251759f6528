"""One upload or download under way: its work one step at a time, and its end exactly once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, ParamSpec, Protocol, TypeVar

from capsule.node.transfers.outgoing import CHUNK
from capsule.node.transfers.threads import on_thread
from capsule_protocol.errors import SessionError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from capsule.node.info import FileInfo
    from capsule.node.transfers.incoming import Incoming
    from capsule.node.transfers.outgoing import Outgoing
    from capsule_protocol.envelope import Buffer

T = TypeVar("T")
P = ParamSpec("P")


class Place(Protocol):
    """What a transfer needs of the files it belongs to."""

    closed: bool

    def end(self, transfer: Transfer, last: Coroutine[None, None, None] | None = None, name: str = "") -> None:
        """It is over, but for this; who asks for the same name waits for it."""

    async def keep(self, incoming: Incoming) -> None:
        """It was interrupted, and may be gone on with."""


class Transfer:
    """What uploads and downloads have in common. `on_closed` is called if the session ends before."""

    def __init__(self, place: Place) -> None:
        self.on_closed: Callable[[], object] | None = None
        self._place = place
        self._over = False
        self._busy = asyncio.Lock()

    async def _work(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        async with self._busy:
            if self._over or self._place.closed:
                raise SessionError("session_dead", "the session's worker has ended, and its files with it")
            return await on_thread(function, *args, **kwargs)

    def _end(self, last: Coroutine[None, None, None] | None = None, name: str = "") -> None:
        if not self._over:
            self._over = True
            self._place.end(self, last, name)
        elif last is not None:
            last.close()


class Upload(Transfer):
    """One attempt to bring a file in. It ends with `finish`, `abandon` or `discard`."""

    def __init__(self, place: Place, incoming: Incoming) -> None:
        super().__init__(place)
        self._incoming = incoming
        self.offset = incoming.offset
        self.digest = incoming.digest

    async def begin(self, offset: int) -> None:
        """The sender goes on at the offset that was offered, or at 0."""
        if offset == 0:
            await self._work(self._incoming.rewind)
        elif offset != self.offset:
            raise SessionError("transfer_failed", f"offset {offset} was not offered: {self.offset} was, or 0")

    async def write(self, chunks: Sequence[Buffer]) -> None:
        """Add bytes. Raises SessionError."""
        await self._work(self._incoming.write, chunks)

    async def finish(self, digest: str) -> FileInfo:
        """All is there: put it in its place. Raises SessionError; then nothing is left of it."""
        try:
            info = await self._work(self._incoming.commit, digest)
        except BaseException:
            self.discard()
            raise
        self._end()
        return info

    def abandon(self) -> None:
        """Interrupted: another attempt may go on. Idempotent."""
        self._end(self._put_away(), self._incoming.name)

    def discard(self) -> None:
        """Failed: nothing is left. Idempotent."""
        self._end(self._remove())

    async def _put_away(self) -> None:
        async with self._busy:
            await self._place.keep(self._incoming)

    async def _remove(self) -> None:
        async with self._busy:
            await on_thread(self._incoming.discard)


class Download(Transfer):
    """One attempt to bring a file out. It ends with `close`."""

    def __init__(self, place: Place, outgoing: Outgoing) -> None:
        super().__init__(place)
        self._outgoing = outgoing
        self.offset = outgoing.offset
        self.size = outgoing.size
        self.modified = outgoing.modified

    @property
    def digest(self) -> str:
        """Of the bytes so far; after the last one, of the whole."""
        return self._outgoing.digest

    @property
    def over(self) -> bool:
        """Whether all has been read."""
        return self._outgoing.offset >= self.size

    async def read(self, limit: int = CHUNK) -> bytes:
        """The next bytes, b"" at the end. Raises SessionError."""
        return await self._work(self._outgoing.read, limit)

    def close(self) -> None:
        """Let go of the file. Idempotent."""
        self._end(self._let_go())

    async def _let_go(self) -> None:
        async with self._busy:
            self._outgoing.close()
