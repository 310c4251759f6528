"""What does not wait for a store that takes its time."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

import pytest

from tests.acceptance.durable.deaths import serve
from tests.acceptance.serve.support import LONG

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio

CELL = """
import time
print("runs", flush=True)
try:
    time.sleep(600)
except KeyboardInterrupt:
    open({mark!r}, "x").close()
"""


async def test_to_cancel_all_ends_what_runs_also_while_the_store_takes_long(place: Path) -> None:
    interrupted = place / "interrupted"
    with serve(place / "node", "slow", 1) as served:
        async with (
            served.client() as client,
            client.session(interrupt_grace=0.2) as session,
            asyncio.timeout(LONG),
        ):
            running = session.submit(CELL.format(mark=str(interrupted)))
            events = running.events()
            while getattr(await anext(events), "text", "") != "runs\n":
                pass
            served.process.send_signal(signal.SIGUSR1)
            waiting = [session.submit("import time; time.sleep(600)") for _ in range(3)]
            assert await session.cancel_all() == 4
            while not interrupted.exists():
                await asyncio.sleep(0.005)
            served.process.send_signal(signal.SIGUSR1)
            assert (await running.result()).verdict == "ok"
            assert [(await each.result()).verdict for each in waiting] == ["interrupted"] * 3
