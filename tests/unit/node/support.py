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


def assert_nothing_more(before: tuple[set[int], set[int], list[str]]) -> None:
    """There is no descriptor, no child and no directory more than before."""
    assert state_of_this_process() == before


async def run(session: Session, code: str) -> str:
    async with asyncio.timeout(LONG):
        finished = await session.submit(ExecuteRequest(code)).finished()
    assert finished.verdict == "ok", finished.error
    return finished.text
