"""What tests of the store in a database share: stores, subscribers, and ways to hold one up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from typing import Any

from capsule_bridge.postgres import PostgresStore
from tests.unit.bridge.support import postgres

PATIENCE = 30.0


@asynccontextmanager
async def opened(place: str, url: str = "") -> AsyncIterator[PostgresStore]:
    store = PostgresStore(url or postgres().url(), schema=place)
    try:
        yield store
    finally:
        await store.close()


class Ear:
    """A subscriber; hints are kept until somebody asks for them."""

    def __init__(self, store: PostgresStore, *waiting: str) -> None:
        self.waiting = set(waiting)
        self.hints: asyncio.Queue[Collection[str]] = asyncio.Queue()
        self.end = store.subscribe(self.hints.put_nowait, lambda: self.waiting)

    async def hears(self, wanted: Callable[[Collection[str]], bool] | str) -> Collection[str]:
        """The first hint that is wanted."""
        good = (lambda ids: wanted in ids) if isinstance(wanted, str) else wanted
        while True:
            ids = await asyncio.wait_for(self.hints.get(), PATIENCE)
            if good(ids):
                return ids

    async def listens(self) -> None:
        """Until the connection is there: then it is told to look at all."""
        await self.hears(lambda ids: set(ids) == self.waiting)
        while not self.hints.empty():
            self.hints.get_nowait()


async def connections(database: Any, place: str) -> list[int]:
    """The database's processes that serve the stores of this place."""
    query = "SELECT pid FROM pg_stat_activity WHERE application_name = $1 ORDER BY pid"
    return [pid for (pid,) in await database.fetch(query, f"capsule:{place}")]


async def cut_off(database: Any, store: PostgresStore) -> None:
    """End all connections of the store, from the other side, and return when it knows."""
    lost = await connections(database, store._database.schema)
    assert lost
    await database.fetch("SELECT pg_terminate_backend(pid, 10000) FROM unnest($1::int[]) AS pid", lost)


@asynccontextmanager
async def held_up(database: Any) -> AsyncIterator[None]:
    """Meanwhile no transaction of a store gets to write promises, though all can read them."""
    async with database.transaction():
        await database.execute("LOCK TABLE promises IN EXCLUSIVE MODE")
        yield


async def waits_for_lock(database: Any, number: int = 1, what: str = "relation = 'promises'::regclass") -> None:
    """Return when so many wait for it; unless told otherwise for what `held_up` holds."""
    async with asyncio.timeout(PATIENCE):
        while await database.fetchval(f"SELECT count(*) FROM pg_locks WHERE NOT granted AND {what}") < number:
            pass
