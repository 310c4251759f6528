"""Contender `capsule` of area `bridge`: the SQLite store, through its asynchronous face; and that in PostgreSQL."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from capsule import AsyncClient
from capsule_bench import bridge_postgres, cells, serve_capsule
from capsule_bench.crowd import crowd
from capsule_bench.figures import milliseconds, per_second
from capsule_bench.machine import memory
from capsule_bench.model import Load, Measured, WrongResultError
from capsule_bench.promises import CALLERS, NOW, VALUE, accept, settle
from capsule_bench.serve_capsule import service, session
from capsule_bridge import Bridge, Settlement, SqliteStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from capsule_bridge.sqlite.connect import Level

PENDING = 1_000
RESUMED = 1_000
AT_ONCE = 10
"""Events that one append carries: what a pump gathers while it waits for the one before."""
EVENT = b"e" * 200


@asynccontextmanager
async def opened(level: Level) -> AsyncIterator[SqliteStore]:
    """A store of its own, on the disk where temporary files are."""
    with tempfile.TemporaryDirectory(prefix="capsule-bench-") as folder:
        store = SqliteStore(Path(folder, "store.db"), level)
        try:
            yield store
        finally:
            await store.close()


def one_caller_process(load: Load) -> Measured:
    """Create, settle, create, settle …, each timed."""
    return asyncio.run(_one_caller(load, "process"))


def one_caller_power(load: Load) -> Measured:
    """As `one_caller_process`, with each commit synced."""
    return asyncio.run(_one_caller(load, "power"))


async def _one_caller(load: Load, level: Level) -> Measured:
    values = []
    async with opened(level) as store:
        for number in range((load.warmup + load.samples) // 2):
            begin = time.perf_counter()
            name = await accept(store, f"x{number}")
            between = time.perf_counter()
            await settle(store, name)
            values += [milliseconds(between - begin), milliseconds(time.perf_counter() - between)]
        return Measured(values[load.warmup :], memory())


def many_callers(load: Load) -> Measured:
    """Each caller creates and settles, one execution after another, until all together have done `size` operations."""
    numbers = itertools.count()

    async def sample(store: SqliteStore) -> None:
        left = iter(range(load.size // 2))

        async def caller() -> None:
            for _ in left:
                await settle(store, await accept(store, f"x{next(numbers)}"))

        await asyncio.gather(*(caller() for _ in range(CALLERS)))

    return asyncio.run(_rates(load, sample))


def added_to_execute(load: Load) -> Measured:
    """Milliseconds that `1+1` takes longer where all is written down, each pair of samples side by side."""

    async def measure() -> Measured:
        values = []
        async with session("power") as durable, session("none") as forgetful:
            for _ in range(load.warmup + load.samples):
                took = []
                for running in (durable, forgetful):
                    begin = time.perf_counter()
                    result = await running.run(cells.ONE_PLUS_ONE)
                    took.append(milliseconds(time.perf_counter() - begin))
                    cells.expect("value", result.text, "2")
                values.append(took[0] - took[1])
        return Measured(values[load.warmup :], memory())

    return asyncio.run(measure())


def many_clients(load: Load) -> Measured:
    """Executions per second of many clients together."""
    return serve_capsule.many_clients(load, "power")


def cancel_under_load(load: Load) -> Measured:
    """Milliseconds from the request to cancel code that waits until its verdict, beside a crowd of clients."""

    async def measure() -> Measured:
        values = []
        with service("power") as address, crowd(address):
            async with AsyncClient(address) as client, await client.session() as running:
                for _ in range(load.warmup + load.samples):
                    execution = running.submit(cells.WAIT)
                    events = execution.events()
                    await anext(events)
                    await anext(events)  # its first output: it runs
                    begin = time.perf_counter()
                    await execution.cancel()
                    verdict = (await events.result()).verdict
                    values.append(milliseconds(time.perf_counter() - begin))
                    cells.expect("verdict", verdict, "interrupted")
            return Measured(values[load.warmup :], memory())

    return asyncio.run(measure())


def waiter_woken(load: Load) -> Measured:
    """From the moment when the one who settles goes on to that when the one who waits does."""
    return asyncio.run(_waiter_woken(load))


async def _waiter_woken(load: Load) -> Measured:
    values = []

    async def woken(name: str) -> float:
        if (await bridge.wait(name)).value != VALUE:
            raise WrongResultError(f"{name} has another verdict")
        return time.perf_counter()

    async with opened("power") as store:
        bridge = Bridge(store, lambda: NOW)
        for number in range(load.warmup + load.samples):
            name = await accept(store, f"x{number}")
            waiter = asyncio.ensure_future(woken(name))
            await asyncio.sleep(0)
            await store.get(name, now=NOW)  # its read came before this one, so now it waits
            await bridge.settle(Settlement(name, "resolve", VALUE))
            begin = time.perf_counter()
            values.append(milliseconds(await waiter - begin))
        return Measured(values[load.warmup :], memory())


def events_logged(load: Load) -> Measured:
    """The logs of as many executions as there are callers, all events acknowledged at the end."""
    numbers = itertools.count()

    async def sample(store: SqliteStore) -> None:
        async def execution() -> int:
            name, last = await accept(store, f"x{next(numbers)}"), 0
            while last < load.size // CALLERS:
                last = await store.append(name, [EVENT] * AT_ONCE, after=last)
            return last

        if sum(await asyncio.gather(*(execution() for _ in range(CALLERS)))) < load.size // CALLERS * CALLERS:
            raise WrongResultError("events are missing")

    return asyncio.run(_rates(load, sample))


async def _rates(load: Load, sample: Callable[[SqliteStore], Awaitable[None]]) -> Measured:
    rate, values = per_second(load.size), []
    async with opened("power") as store:
        for _ in range(load.warmup + load.samples):
            begin = time.perf_counter()
            await sample(store)
            values.append(rate(time.perf_counter() - begin))
        return Measured(values[load.warmup :], memory())


def resume(load: Load) -> Measured:
    """Read the end of a log."""
    return asyncio.run(_resume(load))


async def _resume(load: Load) -> Measured:
    values = []
    async with opened("process") as store:
        name = await accept(store, "x")
        for after in range(0, load.size, RESUMED):
            await store.append(name, [b"%d" % after + EVENT] * RESUMED, after=after)
        for _ in range(load.warmup + load.samples):
            begin = time.perf_counter()
            log = await store.read(name, after=load.size - RESUMED, limit=RESUMED)
            values.append(milliseconds(time.perf_counter() - begin))
            if len(log.events) != RESUMED or log.events[-1].sequence != load.size:
                raise WrongResultError(f"{len(log.events)} events, the last of {log.last}")
        return Measured(values[load.warmup :], memory())


def recovery_scan(load: Load) -> Measured:
    """Open a store after its node is gone, and list what had no verdict."""
    return asyncio.run(_recovery_scan(load))


async def _recovery_scan(load: Load) -> Measured:
    values = []
    with tempfile.TemporaryDirectory(prefix="capsule-bench-") as folder:
        path = Path(folder, "store.db")
        await _fill(SqliteStore(path, "process"), load.size)
        for _ in range(load.warmup + load.samples):
            begin = time.perf_counter()
            store = SqliteStore(path, "process")
            found = await store.pending(now=NOW, limit=2 * PENDING)
            values.append(milliseconds(time.perf_counter() - begin))
            await store.close()
            if len(found) != PENDING:
                raise WrongResultError(f"{len(found)} pending, not {PENDING}")
        return Measured(values[load.warmup :], memory())


async def _fill(store: SqliteStore, size: int) -> None:
    """Promises of which some, spread over all, have no verdict."""
    left = iter(range(size))

    async def caller() -> None:
        for number in left:
            name = await accept(store, f"x{number}")
            if number % (size // PENDING):
                await settle(store, name)

    await asyncio.gather(*(caller() for _ in range(CALLERS * 4)))
    await store.close()


def postgres_one_caller(load: Load) -> Measured:
    """Create, settle, create, settle …, each timed."""
    return asyncio.run(bridge_postgres.one_caller(load))


def postgres_many_callers(load: Load) -> Measured:
    """As `many_callers`."""
    return asyncio.run(bridge_postgres.many_callers(load))


def postgres_wake_up(load: Load) -> Measured:
    """From the call by which one node settles until another, which waits, has the verdict in its hands."""
    return asyncio.run(bridge_postgres.wake_up(load))
