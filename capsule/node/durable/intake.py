"""Which executions are being written down: a few at a time, and of those who wait each session one after another.

What all clients ask for together would otherwise be in the node's loop at once, and whoever wants something that takes
a moment, as to cancel what runs, would wait for the work that comes of all of it, several times over.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

MOST = 6
"""With a store that commits in 1 ms that is 6,000 in a second: more than a node has processor for."""


class Intake:
    """That of one store: `most` are in it at a time, and those whom somebody hurries."""

    def __init__(self, most: int = MOST) -> None:
        self._room = most  # below zero while some were hurried
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}  # by session; the one who is next comes first

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    @asynccontextmanager
    async def admitted(self, session: str) -> AsyncIterator[None]:
        """Wait to be let in, behind what this session has asked for before, and be in it meanwhile."""
        if self._room > 0:
            self._room -= 1
        else:
            await self._wait(session)
        try:
            yield
        finally:
            self._leave()

    def hurry(self, session: str) -> None:
        """Let in all of a session: somebody waits for them."""
        for waiting in self._waiting.pop(session, ()):
            self._room -= _let_in(waiting)

    def hurry_all(self) -> None:
        """The store has failed: each is to hear of it as soon as the others."""
        for session in list(self._waiting):
            self.hurry(session)

    async def _wait(self, session: str) -> None:
        waiting = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(session, deque()).append(waiting)
        try:
            await waiting
        except BaseException:
            # Whoever waits for this may be cancelled while the future is not, or is done already (see `start_now`).
            if not waiting.cancel() and not waiting.cancelled():
                self._leave()
            raise

    def _leave(self) -> None:
        self._room += 1
        while self._room > 0 and self._waiting:
            session = next(iter(self._waiting))
            queue = self._waiting.pop(session)
            self._room -= _let_in(queue.popleft())
            if queue:
                self._waiting[session] = queue  # behind all others


def _let_in(waiting: asyncio.Future[None]) -> bool:
    """False: nobody waits any more."""
    if waiting.done():
        return False
    waiting.set_result(None)
    return True
