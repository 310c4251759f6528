"""A store on a simulated disk: what was committed stays, whoever dies; an answer that is under way can be lost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from random import Random
from typing import TypeVar

from capsule_bridge import (
    Claim,
    Created,
    Expired,
    Fence,
    Log,
    MemoryStore,
    NewPromise,
    Promise,
    Retention,
    Settled,
    Settlement,
    Started,
)
from capsule_bridge.store import PAGE
from capsule_protocol.errors import CapsuleError, StoreError

T = TypeVar("T")

SLOWEST = 0.02
FAILURES = 0.02
"""How often a call fails, of which half have been done all the same."""


class SimStore:
    """A `PromiseStore` over `disk`, of which each node that is started has its own."""

    def __init__(self, disk: MemoryStore, chance: Random) -> None:
        self.disk = disk
        self.chance = chance

    @property
    def failure(self) -> Exception | None:
        return self.disk.failure

    async def create(self, new: NewPromise, *, now: int) -> Created:
        return await self.commit(lambda: self.disk.create(new, now=now))

    async def start(self, id: str, *, epoch: int, now: int, again: bool = True, claim: Claim | None = None) -> Started:
        return await self.commit(lambda: self.disk.start(id, epoch=epoch, now=now, again=again, claim=claim))

    async def settle(self, *settlements: Settlement, now: int) -> list[Settled]:
        return await self.commit(lambda: self.disk.settle(*settlements, now=now))

    async def append(self, id: str, events: Sequence[bytes], *, after: int, fence: Fence | None = None) -> int:
        kept = tuple(events)
        return await self.commit(lambda: self.disk.append(id, kept, after=after, fence=fence))

    async def trim(self, id: str, upto: int) -> None:
        await self.commit(lambda: self.disk.trim(id, upto))

    async def get(self, id: str, *, now: int) -> Promise:
        return await self.commit(lambda: self.disk.get(id, now=now))

    async def read(self, id: str, *, after: int, limit: int = PAGE) -> Log:
        return await self.commit(lambda: self.disk.read(id, after=after, limit=limit))

    async def pending(
        self, *, now: int, session: str | None = None, after: str = "", limit: int = PAGE
    ) -> list[Promise]:
        return await self.commit(lambda: self.disk.pending(now=now, session=session, after=after, limit=limit))

    async def expire(self, *, now: int, retention: Retention, limit: int = PAGE) -> Expired:
        return await self.commit(lambda: self.disk.expire(now=now, retention=retention, limit=limit))

    async def close(self) -> None:
        """The disk stays."""

    async def commit(self, call: Callable[[], Awaitable[T]]) -> T:
        """Wait for the disk, do it at one moment, and wait for the answer."""
        await self.pause()
        luck = self.chance.random()
        if luck < FAILURES / 2:
            raise StoreError("store_unavailable", "the disk has failed, and nothing was done")
        refusal: CapsuleError | None = None
        try:
            answer = await call()  # the disk waits for nothing, so nobody comes in between
        except CapsuleError as error:
            refusal = error
        await self.pause()
        if luck < FAILURES:
            raise StoreError("store_unavailable", "the disk has failed, and it was done")
        if refusal is not None:
            raise refusal
        return answer

    async def pause(self) -> None:
        await asyncio.sleep(self.chance.random() * SLOWEST)
