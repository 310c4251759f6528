"""The store in PostgreSQL, for area `bridge`: a server of its own on a private socket, which syncs each commit."""

from __future__ import annotations

import asyncio
import itertools
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from capsule_bench.database import server
from capsule_bench.figures import milliseconds, per_second
from capsule_bench.machine import memory
from capsule_bench.model import Load, Measured, WrongResultError
from capsule_bench.promises import CALLERS, NOW, accept, settle
from capsule_bridge.postgres import PostgresStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Iterator


@asynccontextmanager
async def opened(nodes: int = 1) -> AsyncIterator[list[PostgresStore]]:
    """A new database, opened by so many nodes."""
    with server() as one:
        stores = [PostgresStore(one.url()) for _ in range(nodes)]
        try:
            yield stores
        finally:
            for store in stores:
                await store.close()


async def one_caller(load: Load) -> Measured:
    """Create, settle, create, settle …, each timed."""
    values = []
    async with opened() as (store,):
        for number in range((load.warmup + load.samples) // 2):
            begin = time.perf_counter()
            name = await accept(store, f"x{number}")
            between = time.perf_counter()
            await settle(store, name)
            values += [milliseconds(between - begin), milliseconds(time.perf_counter() - between)]
        return Measured(values[load.warmup :], memory())


async def many_callers(load: Load) -> Measured:
    """Each caller creates and settles, one execution after another, until all together have done `size` operations."""
    rate, values, numbers = per_second(load.size), [], itertools.count()
    async with opened() as (store,):
        for _ in range(load.warmup + load.samples):
            begin = time.perf_counter()
            left = iter(range(load.size // 2))
            await asyncio.gather(*(_caller(store, left, numbers) for _ in range(CALLERS)))
            values.append(rate(time.perf_counter() - begin))
        return Measured(values[load.warmup :], memory())


async def _caller(store: PostgresStore, left: Iterator[int], numbers: Iterator[int]) -> None:
    for _ in left:
        await settle(store, await accept(store, f"x{next(numbers)}"))


async def wake_up(load: Load) -> Measured:
    """From the call by which one node settles until another, which waits, has the verdict in its hands."""
    values, waiting, woken = [], set[str](), asyncio.Event()

    def heard(ids: Collection[str]) -> None:
        if not waiting.isdisjoint(ids):
            woken.set()

    async with opened(2) as (store, other):
        waiting.add(await accept(other, "first"))
        other.subscribe(heard, lambda: waiting)
        await woken.wait()  # told to look once its connection is there
        for number in range(load.warmup + load.samples):
            name = await accept(store, f"x{number}")
            waiting.clear()
            waiting.add(name)
            woken.clear()
            begin = time.perf_counter()
            settling = asyncio.ensure_future(settle(store, name))
            await woken.wait()
            promise = await other.get(name, now=NOW)
            values.append(milliseconds(time.perf_counter() - begin))
            if promise.pending:
                raise WrongResultError(f"{name} has no verdict yet")
            await settling
        return Measured(values[load.warmup :], memory())
