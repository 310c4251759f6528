"""What the tests with real workers share."""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path

from capsule.node.session import ExecuteRequest, Session
from tests.unit.kernels.forked import LONG, children_of, open_descriptors


def state_of_this_process() -> tuple[set[int], set[int], list[str]]:
    directories = sorted(path.name for path in Path(tempfile.gettempdir()).glob("capsule-*"))
    return set(open_descriptors()), children_of(os.getpid()), directories


async def settle_at(before: tuple[set[int], set[int], list[str]]) -> None:
    """Wait until there is no more than before; ZeroMQ closes the descriptors of a closed socket on its own threads."""
    async with asyncio.timeout(LONG):
        while True:
            descriptors, children, directories = state_of_this_process()
            assert (children, directories) == before[1:]
            if len(descriptors) <= len(before[0]):
                return
            await asyncio.sleep(0.01)


async def run(session: Session, code: str) -> str:
    async with asyncio.timeout(LONG):
        finished = await session.submit(ExecuteRequest(code)).finished()
    assert finished.verdict == "ok", finished.error
    return finished.text
