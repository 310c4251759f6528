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
from capsule_bench.execute_capsule import received, run_ok
from capsule_bench.figures import milliseconds, per_second
from capsule_bench.machine import memory
from capsule_bench.model import Load, Measured
from capsule_bench.moving import transfer_memory_of, transfer_rates

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

CLIENTS = 32
IN_FLIGHT = 4
"""Executions that each of many clients keeps under way."""


@contextmanager
def service() -> Iterator[str]:
    """The address of a service that runs meanwhile."""
    with served() as (address, _):
        yield address


@contextmanager
def served() -> Iterator[tuple[str, int]]:
    """The address of a service that runs meanwhile, and its process id."""
    with tempfile.TemporaryDirectory(prefix="cb-") as folder:
        directory, config = Path(folder, "node"), Path(folder, "capsule.toml")
        config.write_text("[environments.default]\nmin_idle = 8\n", encoding="utf-8")
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
async def session() -> AsyncIterator[AsyncSession]:
    """A session that has answered."""
    with service() as address:
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


def many_clients(load: Load) -> Measured:
    """Executions per second of many clients together."""

    async def measure() -> Measured:
        values = []
        with service() as address:
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


async def _full(client: AsyncClient) -> None:
    """Ask until the pool is full and nothing ends in it: a service tells nobody of its own accord."""
    while True:
        pool = (await client.info()).pools.get("default")
        if pool is None or (pool.idle >= pool.min_idle and not pool.starting and not pool.closing):
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
        with served() as (address, pid):
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
