"""Ten thousand sessions, one after another: nothing grows. Run by `make soak`, not by `make test`."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.acceptance.pool.census import cycle, grown, settled
from tests.acceptance.pool.support import warm

if TYPE_CHECKING:
    from tests.acceptance.pool.census import Census

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(3600)]

CYCLES = 10_000
WARM_UP = 2_000
"""Until then the allocator and the interpreter's table of strings grow to their size."""
PART = 1_000
MARGIN = 3 * 2**20
"""Bytes by which node and zygote may each be larger afterwards."""


def memory(census: Census) -> tuple[int, int]:
    """The resident sets of node and zygote."""
    gc.collect()
    return psutil.Process().memory_info().rss, psutil.Process(census.zygote).memory_info().rss


def report(done: int, sizes: tuple[int, int], census: Census) -> None:
    node, zygote = (size / 2**20 for size in sizes)
    print(f"\n{done:6} sessions: node {node:.2f} MiB, zygote {zygote:.2f} MiB, {census}", end="", flush=True)


async def test_ten_thousand_sessions_leave_node_and_zygote_as_they_were() -> None:
    async with warm(min_idle=2) as one:
        await cycle(one, WARM_UP)
        before = await settled(one)
        sizes = memory(before)
        report(0, sizes, before)
        for done in range(PART, CYCLES + PART, PART):
            await cycle(one, PART)
            assert await grown(one, before) == {}
            report(done, memory(before), await settled(one))
        larger = [now - then for now, then in zip(memory(before), sizes, strict=True)]
        assert max(larger) <= MARGIN, f"node and zygote have grown by {larger} bytes"
