"""A service that starts while its store can write nothing: it refuses, and goes on by itself when there is room."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

import pytest

from capsule_protocol.errors import CapsuleError, StoreError
from tests.acceptance.durable.deaths import serve
from tests.acceptance.serve.support import LONG, Served

if TYPE_CHECKING:
    from pathlib import Path

    from capsule import AsyncClient, AsyncSession

pytestmark = pytest.mark.anyio

WAITING = 12
"""Executions behind the one that runs, of which the worker has seven."""


async def leave(client: AsyncClient, mark: Path, count: Path) -> list[str]:
    """Ids of what a session has under way when its service dies: started, and not."""
    session = await client.session(name="work")
    running = session.submit(f"open({str(mark)!r}, 'x'); import time; time.sleep(600)")
    code = f"with open({str(count)!r}, 'a') as file: file.write('x')\n6 * 7"
    waiting = [session.submit(code) for _ in range(WAITING)]
    async with asyncio.timeout(LONG):
        while not mark.exists() or (await session.info()).queue + 8 < 1 + WAITING:
            await asyncio.sleep(0.005)
    return [running.execution_id, *(each.execution_id for each in waiting)]


async def attached(client: AsyncClient) -> AsyncSession:
    """The session, as soon as the store works."""
    while True:
        try:
            return await client.attach("work")
        except StoreError as error:
            assert error.code == "store_unavailable"  # noqa: PT017  tried again


async def test_a_service_that_finds_no_room_at_its_start_refuses_and_then_goes_on(place: Path) -> None:
    count = place / "count"
    with Served(place / "node") as first:
        async with first.client() as client:
            ids = await leave(client, place / "mark", count)
            first.kill()
            first.process.wait(LONG)
    with serve(first.directory, "no room", 1) as second:
        assert "ipc://" in second.said[0]
        async with second.client() as client:
            for refused in (client.session(), client.attach("work")):
                with pytest.raises(CapsuleError) as caught:
                    await refused
                assert (caught.value.code, caught.value.retryable) == ("store_unavailable", True)
            assert [row.name for row in await client.sessions()] == ["work"]
            results = [asyncio.ensure_future(client.execution(each).result(LONG)) for each in ids]
            assert (await client.info()).bridge is not None
            assert not any(each.done() for each in results)
            second.process.send_signal(signal.SIGUSR1)
            async with asyncio.timeout(LONG):
                session = await attached(client)
                told = [await each for each in results]
                assert (await session.run("6 * 7")).text == "42"
            assert session.epoch == 2
        assert second.stop() == 0
    assert [each.verdict for each in told] == ["worker_lost"] * 8 + ["ok"] * (WAITING - 7)
    assert count.read_text() == "x" * (WAITING - 7)
    assert told[0].error is not None
    assert told[0].error.details["started"] is True
