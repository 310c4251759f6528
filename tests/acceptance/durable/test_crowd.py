"""Many ask for much at once: the node writes down a little of it at a time."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from capsule.node.durable.intake import MOST
from tests.acceptance.durable.deaths import serve
from tests.acceptance.serve.support import LONG, Served

pytestmark = pytest.mark.anyio

SESSIONS = 3
EACH = 16


async def test_few_executions_are_written_down_at_a_time(place: Path) -> None:
    with serve(place / "node", "crowd", MOST) as served:
        async with served.client() as client:
            sessions = [await client.session() for _ in range(SESSIONS)]
            async with asyncio.timeout(LONG):
                every = [session.run(f"{n} + 1") for session in sessions for n in range(EACH)]
                results = await asyncio.gather(*every)
    assert [result.text for result in results] == [str(n + 1) for n in range(EACH)] * SESSIONS


async def test_a_restart_overtakes_nothing_that_was_asked_for_before(place: Path) -> None:
    with Served(place / "node") as served:
        async with served.client() as client:
            session = await client.session()
            asked = [session.submit("while True: pass"), *(session.submit("1") for _ in range(4 * MOST))]
            async with asyncio.timeout(LONG):
                await session.restart()
                ends = [await each.result() for each in asked]
                assert {end.verdict for end in ends} == {"killed", "interrupted"}
                assert (await session.run("2 + 2")).text == "4"
            assert (await session.info()).epoch == 2


async def test_an_interrupt_waits_for_no_other_session(place: Path) -> None:
    """What was asked for before it counts as running, also while it has not been written down."""
    with Served(place / "node") as served:
        async with served.client() as client:
            crowd = [await client.session() for _ in range(SESSIONS)]
            session = await client.session()
            others = [asyncio.ensure_future(each.run("1")) for each in crowd for _ in range(4 * MOST)]
            await asyncio.sleep(0)
            asked = session.submit("while True: pass")
            async with asyncio.timeout(LONG):
                assert await session.interrupt()
                assert (await asked.result()).verdict == "interrupted"
                await asyncio.gather(*others)


async def test_one_that_waits_is_known_by_its_id_and_can_be_cancelled(place: Path) -> None:
    with Served(place / "node") as served:
        async with served.client() as client:
            session = await client.session()
            asked = [session.submit("import time; time.sleep(600)"), *(session.submit("1") for _ in range(4 * MOST))]
            last = client.execution(asked[-1].execution_id)
            async with asyncio.timeout(LONG):
                assert await last.cancel()
                assert (await asked[-1].result()).verdict == "interrupted"
                assert await asked[0].cancel()
                assert [(await each.result()).verdict for each in asked[1:-1]] == ["ok"] * (4 * MOST - 1)
