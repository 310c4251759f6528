"""Contender `capsule` of area `serve`: `capsule serve` in a process of its own, and asynchronous clients of it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from capsule import AsyncClient, AsyncSession
from capsule_bench import cells
from capsule_bench.crowd import CLIENTS, IN_FLIGHT
from capsule_bench.execute_capsule import received, run_ok
from capsule_bench.figures import milliseconds, p99, per_second
from capsule_bench.machine import memory, processor_seconds, resident_bytes
from capsule_bench.model import Load, Measured
from capsule_bench.moving import transfer_memory_of, transfer_rates
from capsule_bench.serve_tcp import over_tcp

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

CONFIG = "[serve]\nmax_clients = 2000\n[environments.default]\nmin_idle = 8\n[store]\ndurability = '{durability}'\n"
WATCHED = 20.0
"""Seconds for which idle clients are watched: two of their heartbeats."""


@contextmanager
def service(durability: str = "none") -> Iterator[str]:
    """The address of a service that runs meanwhile."""
    with serving(durability) as (address, _):
        yield address


@contextmanager
def serving(durability: str = "none") -> Iterator[tuple[str, int]]:
    """The address of a service that runs meanwhile, and its process. Area `bridge` tells what durability costs."""
    with tempfile.TemporaryDirectory(prefix="cb-") as folder:
        directory, config = Path(folder, "node"), Path(folder, "capsule.toml")
        config.write_text(CONFIG.format(durability=durability), encoding="utf-8")
        capsule = Path(sys.executable).with_name("capsule")
        command = [str(capsule), "serve", "--directory", str(directory), "--config", str(config)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            try:
                yield f"ipc://{directory}/node.sock", process.pid
            finally:
                process.terminate()


@asynccontextmanager
async def session(durability: str = "none") -> AsyncIterator[AsyncSession]:
    """A session that has answered."""
    with service(durability) as address:
        async with AsyncClient(address) as client, await client.session() as running:
            await run_ok(running, cells.IMPORT_ASYNCIO)
            yield running


def one_plus_one(load: Load) -> Measured:
    """Milliseconds for `1+1`."""

    async def measure() -> Measured:
        values = []
        async with session() as running:
            for _ in range(load.warmup + load.samples):
                begin = time.perf_counter()
                result = await running.run(cells.ONE_PLUS_ONE)
                values.append(milliseconds(time.perf_counter() - begin))
                cells.expect("value", result.text, "2")
            return Measured(values[load.warmup :], memory())

    return asyncio.run(measure())


def one_plus_one_tcp(load: Load) -> Measured:
    """Milliseconds for `1+1`, encrypted."""
    return over_tcp(load)


def many_clients(load: Load, durability: str = "none") -> Measured:
    """Executions per second of many clients together."""

    async def measure() -> Measured:
        values = []
        with service(durability) as address:
            async with AsyncExitStack() as stack:
                clients = [await stack.enter_async_context(AsyncClient(address)) for _ in range(CLIENTS)]
                running = [await client.session() for client in clients]
                for _ in range(load.warmup + load.samples):
                    begin = time.perf_counter()
                    await asyncio.gather(*(_use(one, load.size // CLIENTS) for one in running))
                    values.append(load.size / (time.perf_counter() - begin))
                return Measured(values[load.warmup :], memory())

    return asyncio.run(measure())


async def _use(running: AsyncSession, count: int) -> None:
    left = iter(range(count))

    async def turn() -> None:
        for _ in left:
            result = await running.run(cells.ONE_PLUS_ONE)
            cells.expect("value", result.text, "2")

    await asyncio.gather(*(turn() for _ in range(IN_FLIGHT)))


def first_result(load: Load) -> Measured:
    """Milliseconds for a session out of the service's pool and its first result, one after another."""

    async def measure() -> Measured:
        values = []
        with service() as address:
            async with AsyncClient(address) as client:
                for _ in range(load.warmup + load.samples):
                    await _full(client)
                    begin = time.perf_counter()
                    running = await client.session()
                    result = await running.run(cells.ONE_PLUS_ONE)
                    values.append(milliseconds(time.perf_counter() - begin))
                    cells.expect("first value", result.text, "2")
                    await running.close()
            return Measured(values[load.warmup :], memory())

    return asyncio.run(measure())


def unread_growth(load: Load) -> Measured:
    """MiB by which the node grows beside a client that never reads what its cell prints for ever."""
    return asyncio.run(_beside_unread(load, lambda before, after, _quiet, _loud: (after - before) / 2**20))


def unread_neighbour(load: Load) -> Measured:
    """By what factor the slowest of 100 executions of a neighbour are slower beside such a client."""
    return asyncio.run(_beside_unread(load, lambda _before, _after, quiet, loud: p99(loud) / p99(quiet)))


async def _beside_unread(load: Load, figure: Callable[[int, int, list[float], list[float]], float]) -> Measured:
    values = []
    for _ in range(load.warmup + load.samples):
        with serving() as (address, pid):
            async with AsyncClient(address) as client, AsyncClient(address) as other:
                neighbour, endless = await client.session(), await other.session()
                quiet = await _times(neighbour, load.size)
                before = resident_bytes(pid)
                async with endless.stream("while True: print('x' * 1000)") as events:
                    await anext(aiter(events))
                    loud = await _times(neighbour, load.size)
                    values.append(figure(before, resident_bytes(pid), quiet, loud))
    return Measured(values[load.warmup :], memory())


async def _times(running: AsyncSession, count: int) -> list[float]:
    """Milliseconds of so many executions, after a tenth that does not count."""
    values = []
    for _ in range(count + count // 10):
        begin = time.perf_counter()
        result = await running.run(cells.ONE_PLUS_ONE)
        values.append(milliseconds(time.perf_counter() - begin))
        cells.expect("value", result.text, "2")
    return values[count // 10 :]


def idle_clients_memory(load: Load) -> Measured:
    """KiB of the node for each of many clients that are connected and do nothing."""
    return asyncio.run(_idle(load, lambda grown, _used: grown / load.size / 2**10))


def idle_clients_cpu(load: Load) -> Measured:
    """Percent of a processor that the node takes for all of them together."""
    return asyncio.run(_idle(load, lambda _grown, used: 100 * used / WATCHED))


async def _idle(load: Load, figure: Callable[[int, float], float]) -> Measured:
    values = []
    for _ in range(load.warmup + load.samples):
        with serving() as (address, pid):
            async with AsyncExitStack() as stack:
                clients = [await stack.enter_async_context(AsyncClient(address)) for _ in range(load.size + 1)]
                await clients[0].info()
                before = resident_bytes(pid)
                for client in clients[1:]:
                    await client.info()  # connects
                grown, used = resident_bytes(pid) - before, processor_seconds(pid)
                await asyncio.sleep(WATCHED)
                values.append(figure(grown, processor_seconds(pid) - used))
    return Measured(values[load.warmup :], memory())


async def _full(client: AsyncClient) -> None:
    """Ask until the pool is full and nothing ends in it: a service tells nobody of its own accord."""
    while True:
        pool = (await client.info()).pools["default"]
        if pool.idle >= pool.min_idle and not pool.starting and not pool.closing:
            return
        await asyncio.sleep(0.005)


def upload(load: Load) -> Measured:
    """Megabytes per second into a session."""
    return _move(load, up=True)


def download(load: Load) -> Measured:
    """Megabytes per second out of a session."""
    return _move(load, up=False)


def transfer_memory(load: Load) -> Measured:
    """MiB that the node grows by at most meanwhile."""

    async def measure() -> Measured:
        with serving() as (address, pid):
            async with AsyncClient(address) as client, await client.session() as running:
                values = [await transfer_memory_of(running, load.size, pid) for _ in range(load.samples)]
                return Measured(values, memory())

    return asyncio.run(measure())


def _move(load: Load, *, up: bool) -> Measured:
    async def measure() -> Measured:
        with service() as address:
            async with AsyncClient(address) as client, await client.session() as running:
                values = await transfer_rates(running, load.size, load.warmup + load.samples, up=up)
                return Measured(values[load.warmup :], memory())

    return asyncio.run(measure())


def bulk_output(load: Load) -> Measured:
    """Megabytes per second, all of them received."""
    code, wanted = cells.megabytes(load.size)

    async def measure() -> Measured:
        async with session() as running:
            taken = [await received(running, code, wanted) for _ in range(load.warmup + load.samples)]
            values = [per_second(load.size)(seconds) for seconds in taken]
            return Measured(values[load.warmup :], memory())

    return asyncio.run(measure())
