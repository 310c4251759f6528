"""Long logs told again: as their client deals with them, and never more at once than a connection may hold."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from capsule.events import ClearOutput, Event, Finished, Output
from capsule.node.front.log import WINDOW
from capsule.node.front.unix import UNREAD
from tests.acceptance.serve.raw import Raw
from tests.acceptance.serve.support import LONG, Served, through_proxy

if TYPE_CHECKING:
    from pathlib import Path

    from capsule import AsyncSession

pytestmark = pytest.mark.anyio

MANY = UNREAD + 2_000
SIZE = 128
"""As which each of these counts, in bytes."""
FORGETFUL = '[store]\ndurability = "none"\n'
CODE = f"from IPython.display import clear_output\nfor _ in range({MANY}): clear_output()\n6 * 7"


async def told(session: AsyncSession, code: str) -> list[Event]:
    """All events, asked for with a key."""
    async with asyncio.timeout(LONG), session.stream(code, key="k") as events:
        return [event async for event in events]


def check_whole(events: list[Event]) -> None:
    """Nothing is missing, and nothing came twice."""
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert sum(isinstance(event, ClearOutput) for event in events) == MANY
    assert isinstance(events[-1], Finished)
    assert events[-1].text == "42"


@pytest.mark.parametrize("config", ["", FORGETFUL], ids=["durable", "forgetful"])
async def test_a_log_of_more_events_than_may_wait_for_a_client_is_told_again_on_one_connection(
    place: Path, config: str
) -> None:
    with Served(place / "node", config) as served:
        async with served.client() as first:
            session = await first.session(name="work")
            before = await told(session, CODE)
            check_whole(before)
            await session.detach()
        async with through_proxy(served, place) as (proxy, second):
            again = await second.attach("work")
            assert await told(again, CODE) == before
            assert (await again.run("1")).text == "1"
            assert proxy.connections == 1
        assert "Traceback" not in served.log.read_text()


@pytest.mark.parametrize("config", ["", FORGETFUL], ids=["durable", "forgetful"])
async def test_what_comes_while_a_long_log_is_told_again_follows_it(place: Path, config: str) -> None:
    go = place / "go"
    code = (
        f"import os\n{CODE.removesuffix('6 * 7')}print('all of it', flush=True)\n"
        f"while not os.path.exists({str(go)!r}): pass\nprint('later')\n6 * 7"
    )
    with Served(place / "node", config) as served:
        async with served.client() as first:
            session = await first.session(name="work")
            running = session.stream(code, key="k")
            async with asyncio.timeout(LONG):
                async for event in running:
                    if isinstance(event, Output):
                        break
            await session.detach()
            async with served.client() as second:
                again = await second.attach("work")
                asked = asyncio.create_task(told(again, code))
                async with asyncio.timeout(LONG):
                    while again.state != "busy":
                        await asyncio.sleep(0)
                go.touch()
                events = await asked
    check_whole(events)
    assert "".join(event.text for event in events if isinstance(event, Output)) == "all of it\nlater\n"


async def test_no_more_is_sent_than_the_client_deals_with(place: Path) -> None:
    with Served(place / "node") as served:
        async with served.client() as first:
            session = await first.session(name="work")
            name = (await session.run(CODE, key="k")).execution_id
            await session.detach()
        with Raw(served.address) as raw:
            raw.greet("c_slow")
            raw.say("attach", {"name": "work"}, id_="m_1")
            session_id = raw.answer("m_1").session
            raw.say("resume", {"after": 0}, session_id, name)
            number, dealt_with = 0, 0
            while dealt_with < MANY + 2:
                number += 1
                raw.say("heartbeat", {"number": number})
                last = dealt_with
                while (heard := raw.answer()).type != "heartbeat":
                    last = max(last, heard.sequence)
                assert (last - dealt_with) * SIZE <= WINDOW + SIZE
                dealt_with = last
                raw.say("event_ack", {"executions": {name: dealt_with}}, session_id)
