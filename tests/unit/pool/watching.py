"""Wait for what happens in a pool: every wait ends with an event, none with the clock."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from capsule_pool import Pool, PoolEvent, PoolInfo


class Events:
    """All events of a pool, in order; given to it as `on_event`."""

    def __init__(self) -> None:
        self.seen: list[PoolEvent] = []
        self._changed = asyncio.Event()

    def __call__(self, event: PoolEvent) -> None:
        self.seen.append(event)
        self._changed.set()

    def kinds(self, *kinds: str) -> list[tuple[str, str]]:
        """Kind and cause of those events that are of these kinds."""
        return [(event.kind, event.cause) for event in self.seen if event.kind in kinds]

    async def until(self, pool: Pool[Any], holds: Callable[[PoolInfo], bool]) -> PoolInfo:
        """Wait until this holds of the pool, and the pool has done what follows from it."""
        while True:
            await asyncio.sleep(0)  # an event is told before the pool acts on it
            if holds(pool.info()):
                return pool.info()
            self._changed.clear()
            await self._changed.wait()


async def give_way() -> None:
    """Let the other tasks run until each of them waits for something outside."""
    for _ in range(10):
        await asyncio.sleep(0)
