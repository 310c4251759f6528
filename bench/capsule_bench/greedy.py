"""What a session can take too much of, and how those beside it fare meanwhile."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from capsule_bench import cells
from capsule_bench.figures import milliseconds

if TYPE_CHECKING:
    from capsule import AsyncSession

LIMITS: dict[str, Any] = {"max_processes": 20, "memory_bytes": 128 * 2**20, "max_open_files": 256}

HOGS = {
    "fork bomb": ("import os\nwhile True: os.fork()", "process_limit_exceeded"),
    "memory hog": (
        "import signal\nhoard = []\nfor _ in range(64): hoard.append(bytearray(b'x') * 2**24)\nsignal.pause()",
        "execution_oom",
    ),
    "descriptor hog": ("files = []\nwhile True: files.append(open('/dev/null'))", "execution_error"),
}
"""What it runs, and the code of the error that this has to end in."""


async def latencies(session: AsyncSession, count: int, until: asyncio.Event | None = None) -> list[float]:
    """Milliseconds of each of at least so many small executions; they go on until the event."""
    values: list[float] = []
    while len(values) < count or (until is not None and not until.is_set()):
        begin = time.perf_counter()
        result = await session.run(cells.ONE_PLUS_ONE)
        values.append(milliseconds(time.perf_counter() - begin))
        cells.expect("value", result.text, "2")
    return values


async def latencies_beside(
    greedy: AsyncSession, session: AsyncSession, count: int, *, again: bool = False
) -> list[float]:
    """The same, while the other session is greedy in each way in turn: once, or again and again until the end."""
    once, over = asyncio.Event(), asyncio.Event()
    if not again:
        over.set()
    hogging = asyncio.ensure_future(_hog(greedy, once, over))
    try:
        return await latencies(session, count, once)
    finally:
        over.set()
        await hogging


async def _hog(session: AsyncSession, once: asyncio.Event, over: asyncio.Event) -> None:
    try:
        while not (over.is_set() and once.is_set()):
            for name, (code, wanted) in HOGS.items():
                result = await session.run(code)
                cells.expect(f"error of the {name}", result.error and result.error.code, wanted)
                await session.restart()
            once.set()
    finally:
        once.set()  # also if it failed: nobody waits for it any longer
