"""Many ask for much at once: the node writes down a little of it at a time."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from capsule.node.durable.turns import AT_ONCE
from tests.acceptance.durable.deaths import serve
from tests.acceptance.serve.support import LONG

pytestmark = pytest.mark.anyio

SESSIONS = 3
EACH = 16


async def test_few_executions_are_written_down_at_a_time(place: Path) -> None:
    with serve(place / "node", "crowd", AT_ONCE) as served:
        async with served.client() as client:
            sessions = [await client.session() for _ in range(SESSIONS)]
            async with asyncio.timeout(LONG):
                every = [session.run(f"{n} + 1") for session in sessions for n in range(EACH)]
                results = await asyncio.gather(*every)
    assert [result.text for result in results] == [str(n + 1) for n in range(EACH)] * SESSIONS
