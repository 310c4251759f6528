"""Services whose store is a database."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from capsule import AsyncClient, AsyncExecution, AsyncSession, SessionError
from tests.acceptance.serve.support import LONG, Served

LEASE = 3.0
"""Seconds: short, so that nobody waits long for the end of a dead node's lease, and long enough for a busy machine."""


def config(url: str, more: str = "") -> str:
    return f'[store]\nurl = "{url}"\nlease = {LEASE}\n{more}'


def node(directory: Path, url: str, *, linger: float = 0.0, more: str = "") -> Served:
    return Served(directory, config(url, more), linger=linger)


def killed(served: Served) -> None:
    """End it as a crash would."""
    served.kill()
    served.process.wait(LONG)


async def begun(execution: AsyncExecution, mark: Path) -> None:
    """Wait until its code runs, which makes this file."""
    async with asyncio.timeout(LONG):
        while not mark.exists():
            await asyncio.sleep(0.005)
    assert not execution.done


async def until(holds: Callable[[], bool]) -> None:
    """Wait for what another process does, of which nobody is told."""
    async with asyncio.timeout(LONG):
        while not holds():
            await asyncio.sleep(0.01)


async def attached(name: str, *clients: AsyncClient) -> AsyncSession:
    """The session, as soon as one of these nodes has it."""
    async with asyncio.timeout(LONG):
        while True:
            for client in clients:
                try:
                    return await client.attach(name)
                except SessionError as error:
                    if error.code not in {"session_unknown", "session_elsewhere"}:
                        raise
            await asyncio.sleep(0.05)
