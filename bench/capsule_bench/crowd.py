"""Keeps a service under full load until stdin ends: `python -m capsule_bench.crowd ADDRESS`. A process of its own, so
that whoever measures beside it does not wait for it.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from contextlib import AsyncExitStack, contextmanager
from typing import TYPE_CHECKING

from capsule import AsyncClient, AsyncSession
from capsule_bench import cells
from capsule_bench.model import WrongResultError

if TYPE_CHECKING:
    from collections.abc import Iterator

CLIENTS = 32
IN_FLIGHT = 4
"""Executions that each client keeps under way in its session."""


@contextmanager
def crowd(address: str) -> Iterator[None]:
    """The service is under full load meanwhile. Raises WrongResultError if it was not."""
    command = [sys.executable, "-m", "capsule_bench.crowd", address]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield
        finally:
            process.stdin.close()
            done = process.stdout.read()
    if process.returncode or int(done) < CLIENTS * IN_FLIGHT:
        raise WrongResultError(f"the crowd has ended with {process.returncode}, after {done!r} executions")


async def _main(address: str) -> int:
    """How many executions there were once all sessions had answered."""
    count, over = 0, asyncio.Event()

    async def turn(running: AsyncSession) -> None:
        nonlocal count
        while not over.is_set():
            cells.expect("value", (await running.run(cells.ONE_PLUS_ONE)).text, "2")
            count += 1

    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(AsyncClient(address)) for _ in range(CLIENTS)]
        sessions = [await client.session() for client in clients]
        for running in sessions:
            await running.run(cells.ONE_PLUS_ONE)
        asyncio.get_running_loop().add_reader(sys.stdin, over.set)
        print("ready", flush=True)
        await asyncio.gather(*(turn(running) for running in sessions for _ in range(IN_FLIGHT)))
    return count


if __name__ == "__main__":
    print(asyncio.run(_main(sys.argv[1])))
