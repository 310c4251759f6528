"""A pool to be tried, with members that are processes of their own."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from capsule_pool import Pool, PoolConfig
from capsule_pool.testing import ProcessFactory, ProcessMember
from tests.unit.pool.watching import Events

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Bench:
    """A pool with its factory and its events."""

    def __init__(self, jitter: float = 1.0, **config: Any) -> None:
        self.factory = ProcessFactory()
        self.events = Events()
        self.pool: Pool[ProcessMember] = Pool(
            self.factory,
            PoolConfig(**{"min_idle": 0, "refill_delay": 0.0, **config}),
            "test",
            on_event=self.events,
            jitter=lambda: jitter,
        )

    async def warm(self, count: int) -> None:
        """Wait until so many are idle."""
        self.pool.warm()
        await self.events.until(self.pool, lambda info: info.idle == count)

    def acquiring(self, count: int, **options: Any) -> list[asyncio.Task[ProcessMember]]:
        """Tasks that acquire, in this order."""
        return [asyncio.ensure_future(self.pool.acquire(**options)) for _ in range(count)]


@asynccontextmanager
async def bench(**config: Any) -> AsyncIterator[Bench]:
    """A pool that is closed in the end, and has left nothing then."""
    one = Bench(**config)
    try:
        yield one
    finally:
        one.factory.gate.set()
        await one.pool.close()
    info = one.pool.info()
    assert (info.idle, info.starting, info.in_use, info.closing, info.waiting) == (0, 0, 0, 0, 0)
    assert info.stats.counts["created"] == info.stats.counts["gone"]
    assert all(member.died.done() for member in one.factory.made)
