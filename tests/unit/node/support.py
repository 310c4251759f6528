"""What the tests with real workers share."""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path

from capsule.node.session import ExecuteRequest, Session
from tests.unit.kernels.forked import LONG, children_of, open_descriptors


def state_of_this_process() -> set[str]:
    """Its descriptors, its children, and the directories of boxes."""
    descriptors = {f"descriptor {number}: {target}" for number, target in open_descriptors().items()}
    children = {f"child {pid}" for pid in children_of(os.getpid())}
    return descriptors | children | {path.name for path in Path(tempfile.gettempdir()).glob("capsule-*")}


def assert_nothing_more(before: set[str]) -> None:
    """There is no descriptor, no child and no directory more than before. What an earlier test had may go meanwhile."""
    assert not state_of_this_process() - before


async def run(session: Session, code: str) -> str:
    async with asyncio.timeout(LONG):
        finished = await session.submit(ExecuteRequest(code)).finished()
    assert finished.verdict == "ok", finished.error
    return finished.text
