"""Who may have something written down: a few at a time, and of those who wait each session one after another.

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

AT_ONCE = 6
"""With a store that commits in 1 ms that is 6,000 in a second: more than a node has processor for."""


class Turns:
    """Those of one store. `at_once` may be in the midst of theirs."""

    def __init__(self, at_once: int = AT_ONCE) -> None:
        self._free = at_once
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}  # by session; the one whose turn is next comes first

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    @asynccontextmanager
    async def turn(self, session: str) -> AsyncIterator[None]:
        """Wait for a turn, behind what this session has asked for before, and have it meanwhile."""
        if self._free:
            self._free -= 1
        else:
            await self._wait(session)
        try:
            yield
        finally:
            self._pass_on()

    async def _wait(self, session: str) -> None:
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(session, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # it had come, and nobody is there to have it
                self._pass_on()
            raise

    def _pass_on(self) -> None:
        while self._waiting:
            session = next(iter(self._waiting))
            queue = self._waiting.pop(session)
            turn = queue.popleft()
            if queue:
                self._waiting[session] = queue  # behind all others
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1
