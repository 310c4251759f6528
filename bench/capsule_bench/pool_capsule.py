"""Contender `capsule` of area `pool`: library mode, through the asynchronous client."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from capsule import AsyncClient
from capsule_bench import cells, greedy
from capsule_bench.figures import milliseconds, p99
from capsule_bench.machine import memory, own_memory
from capsule_bench.model import Load, Measured

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from capsule_pool import PoolEvent, PoolInfo

MIB = 2**20
AT_ONCE = 4
STAGGER = 0.2
DATA = ("numpy", "pandas")
SPAWN: dict[str, Any] = {"start_method": "spawn"}


class Warm:
    """A client whose pool can be waited for."""

    def __init__(self, **environment: Any) -> None:
        self._changed = asyncio.Event()
        self.client = AsyncClient(environments={"default": environment}, on_pool_event=self._tell)

    def _tell(self, _: PoolEvent) -> None:
        self._changed.set()

    async def pool(self) -> PoolInfo:
        """The pool as it is now."""
        return (await self.client.info()).pools["default"]

    async def full(self) -> None:
        """Wait until all that is kept ready is ready, and nothing ends."""
        while _is_busy(await self.pool()):
            self._changed.clear()
            await self._changed.wait()
            await asyncio.sleep(0)  # an event is told before the pool acts on it

    async def first_result(self) -> float:
        """Seconds for a session and its first result."""
        begin = time.perf_counter()
        async with self.client.session() as session:
            result = await session.run(cells.ONE_PLUS_ONE)
            taken = time.perf_counter() - begin
        cells.expect("first value", result.text, "2")
        return taken


def _is_busy(pool: PoolInfo) -> bool:
    return pool.idle < pool.min_idle or bool(pool.starting or pool.closing)


@asynccontextmanager
async def warm(**environment: Any) -> AsyncIterator[Warm]:
    """A client that has had a session, and whose pool is full."""
    one = Warm(**environment)
    async with one.client:
        await one.first_result()
        await one.full()
        yield one


def acquire(load: Load) -> Measured:
    """Milliseconds for a session out of a full pool."""
    return _acquire(load)


def spawned_warm(load: Load) -> Measured:
    """The same where workers are interpreters of their own."""
    return _acquire(load, **SPAWN)


def _acquire(load: Load, **environment: Any) -> Measured:
    async def measure() -> Measured:
        values = []
        async with warm(min_idle=load.size, **environment) as one:
            for _ in range(load.warmup + load.samples):
                await one.full()
                begin = time.perf_counter()
                session = await one.client.session()
                values.append(milliseconds(time.perf_counter() - begin))
                await session.close()
            cells.expect("sessions that waited", (await one.pool()).stats.counts["misses"], 1)
            return Measured(values[load.warmup :], memory())

    return asyncio.run(measure())


def first_result(load: Load) -> Measured:
    """Milliseconds for a session out of a full pool and its first result."""

    async def measure() -> Measured:
        async with warm(min_idle=load.size) as one:
            values = []
            for _ in range(load.warmup + load.samples):
                await one.full()
                values.append(milliseconds(await one.first_result()))
            return Measured(values[load.warmup :], memory())

    return asyncio.run(measure())


def staggered(load: Load) -> Measured:
    """The same, where a session begins every 200 ms, whatever the others do."""

    async def measure() -> Measured:
        async with warm(min_idle=load.size) as one:
            running = []
            for _ in range(load.warmup + load.samples):
                running.append(asyncio.ensure_future(one.first_result()))
                await asyncio.sleep(STAGGER)
            values = [milliseconds(taken) for taken in await asyncio.gather(*running)]
            return Measured(values[load.warmup :], memory())

    return asyncio.run(measure())


def burst_of_ten(load: Load) -> Measured:
    """The same, as many at once as are ready."""

    async def measure() -> Measured:
        values = []
        async with warm(min_idle=load.size) as one:
            for _ in range(load.warmup + load.samples):
                await one.full()
                values.append(await asyncio.gather(*(one.first_result() for _ in range(load.size))))
            counted = [milliseconds(taken) for burst in values[load.warmup :] for taken in burst]
            return Measured(counted, memory())

    return asyncio.run(measure())


def drained(load: Load) -> Measured:
    """Milliseconds for a session that has to be forked, and its first result."""
    return _drained(load)


def spawned(load: Load) -> Measured:
    """The same where its worker is an interpreter of its own."""
    return _drained(load, **SPAWN)


def spawned_data(load: Load) -> Measured:
    """The same, with modules that it imports itself."""
    return _drained(load, **SPAWN, preload=DATA)


def _drained(load: Load, **environment: Any) -> Measured:
    async def measure() -> Measured:
        async with warm(min_idle=0, **environment) as one:
            values = [milliseconds(await one.first_result()) for _ in range(load.warmup + load.samples)]
            cells.expect("warm sessions", (await one.pool()).stats.counts["hits"], 0)
            return Measured(values[load.warmup :], memory())

    return asyncio.run(measure())


def spawned_times(load: Load) -> Measured:
    """How many times longer it takes than where it is forked."""

    async def measure() -> Measured:
        async with warm(min_idle=0, **SPAWN) as one, warm(min_idle=0) as other:
            values = [await one.first_result() / await other.first_result() for _ in range(load.warmup + load.samples)]
            return Measured(values[load.warmup :], memory())

    return asyncio.run(measure())


def burst(load: Load) -> Measured:
    """Milliseconds until the last of many sessions that all begin at once has its first result."""

    async def measure() -> Measured:
        values = []
        async with warm(min_idle=10) as one:
            for _ in range(load.warmup + load.samples):
                await one.full()
                taken = await asyncio.gather(*(one.first_result() for _ in range(load.size)))
                values.append(milliseconds(max(taken)))
            return Measured(values[load.warmup :], memory())

    return asyncio.run(measure())


def sustained(load: Load) -> Measured:
    """Sessions per second, a few at once, each created, used and closed."""

    async def measure() -> Measured:
        values = []
        async with warm(min_idle=AT_ONCE) as one:
            for _ in range(load.warmup + load.samples):
                left = iter(range(load.size))
                begin = time.perf_counter()
                await asyncio.gather(*(_use_all(one, left) for _ in range(AT_ONCE)))
                values.append(load.size / (time.perf_counter() - begin))
            return Measured(values[load.warmup :], memory())

    return asyncio.run(measure())


async def _use_all(one: Warm, left: Any) -> None:
    for _ in left:
        await one.first_result()


def idle_memory(load: Load) -> Measured:
    """MiB that belong to each of some idle workers alone."""
    return _idle_memory(load)


def spawned_memory(load: Load) -> Measured:
    """The same where they are interpreters of their own."""
    return _idle_memory(load, **SPAWN)


def _idle_memory(load: Load, **environment: Any) -> Measured:
    async def measure() -> Measured:
        async with warm(min_idle=1, preload=DATA, **environment) as one:
            sessions = [await one.client.session() for _ in range(load.size)]
            values = [own_memory((await session.info()).pid) / MIB for session in sessions]
            return Measured(values, memory())

    return asyncio.run(measure())


def held(load: Load) -> Measured:
    """MiB that this process and all others take while many sessions are open."""

    async def measure() -> Measured:
        async with warm(min_idle=1, preload=DATA) as one:
            sessions = [await one.client.session() for _ in range(load.size)]
            result = await sessions[-1].run(cells.ONE_PLUS_ONE)
            cells.expect("value in the last session", result.text, "2")
            cells.expect(
                "processes", len({(await session.info()).pid for session in sessions} - {0, os.getpid()}), load.size
            )
            used = memory()
            return Measured([(used.rss + used.pss_children) / MIB], used)

    return asyncio.run(measure())


def neighbours(load: Load) -> Measured:
    """How many times longer 99 of 100 small executions take at most when another session is greedy meanwhile."""
    return _beside(load, again=False)


def attacked(load: Load) -> Measured:
    """The same where the other one begins again as soon as it has been stopped."""
    return _beside(load, again=True)


def _beside(load: Load, *, again: bool) -> Measured:
    async def measure() -> Measured:
        async with (
            warm(min_idle=2) as one,
            one.client.session() as session,
            one.client.session(**greedy.LIMITS) as other,
        ):
            values = []
            for _ in range(load.warmup + load.samples):
                beside = await greedy.latencies_beside(other, session, load.size, again=again)
                await one.full()
                quiet = await greedy.latencies(session, len(beside))
                values.append(p99(beside) / p99(quiet))
            return Measured(values[load.warmup :], memory())

    return asyncio.run(measure())
