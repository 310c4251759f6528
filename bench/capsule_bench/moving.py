"""Moves files into a session and out of it, and looks whether they are the same on the other side."""

from __future__ import annotations

import asyncio
import filecmp
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from capsule_bench import cells
from capsule_bench.machine import resident_bytes

if TYPE_CHECKING:
    from capsule import AsyncSession

MIB = 2**20
MEGABYTE = 1e6
NAME = "moved"


async def transfer_rates(session: AsyncSession, size: int, count: int, *, up: bool) -> list[float]:
    """Megabytes per second for files of `size` MiB, one after another: from a file here to one there, or back."""
    values = []
    with tempfile.TemporaryDirectory(prefix="cb-") as folder:
        source, back = Path(folder, NAME), Path(folder, "back")
        await asyncio.to_thread(_fill, source, size)
        for _ in range(count):
            taken = [await _timed(session, source, None), await _timed(session, source, back)]
            values.append(size * MIB / MEGABYTE / taken[0 if up else 1])
            same = await asyncio.to_thread(filecmp.cmp, source, back, shallow=False)
            cells.expect("what came back", same, True)  # noqa: FBT003 - the value that is expected
    return values


async def transfer_memory_of(session: AsyncSession, size: int, node: int) -> float:
    """MiB that the process of the node grows by at most while a file of `size` MiB goes up and down."""
    before = most = resident_bytes(node)

    def look(_done: int, _total: int | None) -> None:
        nonlocal most
        most = max(most, resident_bytes(node))

    with tempfile.TemporaryDirectory(prefix="cb-") as folder:
        source, back = Path(folder, NAME), Path(folder, "back")
        await asyncio.to_thread(_fill, source, size)
        await session.upload(source, progress=look)
        await session.download(NAME, back, progress=look)
        cells.expect("size of what came back", back.stat().st_size, size * MIB)
    return (most - before) / MIB


async def _timed(session: AsyncSession, source: Path, back: Path | None) -> float:
    begin = time.perf_counter()
    if back is None:
        await session.upload(source)
    else:
        await session.download(NAME, back)
    return time.perf_counter() - begin


def _fill(path: Path, size: int) -> None:
    with path.open("wb") as file:
        for _ in range(size):
            file.write(os.urandom(MIB))
