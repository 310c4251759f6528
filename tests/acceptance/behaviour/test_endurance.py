"""A session that is used for a long time neither hangs nor grows."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.acceptance.behaviour.support import ok

if TYPE_CHECKING:
    from capsule import AsyncSession

MIB = 2**20
BATCH = 500


async def rounds(session: AsyncSession, count: int, code: str) -> None:
    """`count` executions, `BATCH` at a time, each of which must end well."""
    for _ in range(count // BATCH):
        async with asyncio.timeout(60):
            results = await asyncio.gather(*(session.run(code, store_history=False) for _ in range(BATCH)))
        assert {result.verdict for result in results} == {"ok"}


@pytest.mark.anyio
async def test_ten_thousand_executions_with_debug_logging_neither_hang_nor_grow(session: AsyncSession) -> None:
    """Everything logs to stderr at DEBUG, what runs in the worker included; nobody reads it but the node."""
    await ok(session, "import logging\nlogging.basicConfig(level=logging.DEBUG, force=True)\nn = 0")
    code = "n += 1\nlogging.debug('round %d', n)"
    await rounds(session, 2000, code)
    worker, node = psutil.Process((await session.info()).pid), psutil.Process()
    before = worker.memory_info().rss, node.memory_info().rss, worker.num_fds(), node.num_fds()
    await rounds(session, 8000, code)
    after = worker.memory_info().rss, node.memory_info().rss, worker.num_fds(), node.num_fds()
    last = await ok(session, "logging.debug('last')\nn")
    assert last.text == "10000"
    assert "last" in last.stderr
    assert after[0] - before[0] < 16 * MIB, "the worker grew"
    assert after[1] - before[1] < 16 * MIB, "the node grew"
    assert after[2] <= before[2], "the worker left descriptors open"
    assert after[3] <= before[3], "the node left descriptors open"


@pytest.mark.anyio
async def test_out_and_the_source_cache_are_bounded(session: AsyncSession) -> None:
    """What `Out` and the tracebacks' sources keep has a bound; the newest are kept."""
    for n in range(0, 1500, BATCH):
        async with asyncio.timeout(60):
            await asyncio.gather(*(session.run(str(n + i)) for i in range(BATCH)))
    kept = await ok(session, "import linecache\nlen(Out), max(Out), len(linecache.cache)")
    out, newest, sources = map(int, kept.text.strip("()").split(","))
    assert out <= 1001
    assert newest == 1500
    assert sources <= 1100


@pytest.mark.anyio
async def test_an_endless_stderr_loses_nothing(session: AsyncSession) -> None:
    """Far more than a pipe holds goes to descriptor 2 while nothing else happens."""
    code = "import os\nfor n in range(4000): os.write(2, b'%06d ' % n + b'x' * 1000 + b'\\n')"
    result = await ok(session, code)
    assert [int(line[:6]) for line in result.stderr.splitlines()] == list(range(4000))
