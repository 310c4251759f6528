"""Of area `capabilities`: what the sandbox costs, when a worker is made and while it runs."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from capsule import AsyncClient, AsyncSession
from capsule.config import NodeConfig
from capsule.node.launch import Zygote
from capsule.node.sandboxing import sandbox_of
from capsule.node.worker import Place, Preparation, Worker
from capsule.settings.environments import EnvironmentConfig
from capsule_bench import cells
from capsule_bench.figures import median, milliseconds
from capsule_bench.machine import memory
from capsule_bench.model import Load, Measure, Measured, Must

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PRELOAD = ("numpy", "pandas")
MEASURES = (
    Measure(
        "isolated_worker",
        "from the fork to a worker in its sandbox that has answered, level `namespaces`, numpy and pandas warm",
        "ms",
        full=Load(samples=300, warmup=20),
        quick=Load(samples=20, warmup=3),
        must=Must(median=12, p99=40),
    ),
    Measure(
        "isolation",
        "the sandbox's part of it: beside a worker without one",
        "ms",
        full=Load(samples=300, warmup=20),
        quick=Load(samples=20, warmup=3),
        must=Must(median=4),
    ),
    Measure(
        "landlocked_worker",
        "from the fork to a worker that has answered, level `landlock`",
        "ms",
        full=Load(samples=300, warmup=20),
        quick=Load(samples=20, warmup=3),
    ),
    Measure(
        "execute_sandboxed",
        "`1+1` in a sandbox ÷ without one",
        "x",
        full=Load(samples=20, warmup=2, size=300),
        quick=Load(samples=3, warmup=1, size=50),
        must=Must(median=1.1),
    ),
)


def isolated_worker(load: Load) -> Measured:
    """Milliseconds for a worker at the level `namespaces`."""
    return asyncio.run(_workers(load, "namespaces"))


def landlocked_worker(load: Load) -> Measured:
    """Milliseconds for a worker at the level `landlock`, as the node's own user: the interpreter may be private."""
    return asyncio.run(_workers(load, "landlock"))


def isolation(load: Load) -> Measured:
    """Milliseconds that a worker at the level `namespaces` takes longer; workers of both kinds are made in turn."""

    async def measure() -> Measured:
        async with _zygote("namespaces") as isolated, _zygote("none") as plain:
            taken = [await _made(isolated) - await _made(plain) for _ in range(load.warmup + load.samples)]
            return Measured([milliseconds(each) for each in taken[load.warmup :]], memory())

    return asyncio.run(measure())


def execute_sandboxed(load: Load) -> Measured:
    """How many times as long `1+1` takes: medians of rounds that take turns."""

    async def measure() -> Measured:
        environments = {level: EnvironmentConfig(sandbox=level, preload=PRELOAD) for level in ("none", "namespaces")}
        async with AsyncClient(config=NodeConfig(environments=environments)) as client, AsyncExitStack() as stack:
            plain, boxed = [await stack.enter_async_context(client.session(level)) for level in environments]
            values = []
            for _ in range(load.warmup + load.samples):
                before = await _round(plain, load.size)
                values.append(await _round(boxed, load.size) / before)
            return Measured(values[load.warmup :], memory())

    return asyncio.run(measure())


async def _workers(load: Load, level: str) -> Measured:
    async with _zygote(level) as place:
        taken = [await _made(place) for _ in range(load.warmup + load.samples)]
        return Measured([milliseconds(each) for each in taken[load.warmup :]], memory())


@asynccontextmanager
async def _zygote(level: str) -> AsyncIterator[Place]:
    config = EnvironmentConfig.build(sandbox=level, uid=0 if level == "landlock" else None)
    zygote = await Zygote.start(preload=PRELOAD, sandbox=sandbox_of(config))
    try:
        yield Place(zygote, None)
    finally:
        zygote.close()
        await zygote.died.wait()


async def _made(place: Place) -> float:
    """Seconds for one worker, which is ended afterwards."""
    begin = time.perf_counter()
    worker = await Worker.prepare(place, Preparation())
    taken = time.perf_counter() - begin
    watching = asyncio.ensure_future(worker.watch())
    await worker.close()
    await watching
    return taken


async def _round(session: AsyncSession, size: int) -> float:
    taken = []
    for _ in range(size):
        begin = time.perf_counter()
        result = await session.run(cells.ONE_PLUS_ONE)
        taken.append(time.perf_counter() - begin)
        cells.expect("value", result.text, "2")
    return median(taken)
