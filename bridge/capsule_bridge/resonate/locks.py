"""A lock for each promise, as long as somebody needs it."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@dataclass(slots=True)
class _Lock:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: int = 0


class Locks:
    """Locks by id."""

    def __init__(self) -> None:
        self._locks: dict[str, _Lock] = {}

    @asynccontextmanager
    async def hold(self, *ids: str) -> AsyncIterator[None]:
        """Hold the locks of all these ids, once the others have let go of them."""
        async with AsyncExitStack() as held:
            for id_ in sorted(set(ids)):  # in one order, or two could wait for each other
                await held.enter_async_context(self._one(id_))
            yield

    @asynccontextmanager
    async def _one(self, id_: str) -> AsyncIterator[None]:
        one = self._locks.setdefault(id_, _Lock())
        one.users += 1
        try:
            async with one.lock:
                yield
        finally:
            one.users -= 1
            if not one.users:
                del self._locks[id_]
