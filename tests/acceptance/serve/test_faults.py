"""A network that drops, delays, reorders and cuts: every client sees all events once, and all code runs once."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest

from capsule import AsyncClient, CapsuleError
from capsule.client.remote import link
from tests.acceptance.serve.faults import KINDS, FaultyProxy
from tests.acceptance.serve.support import LONG
from tests.acceptance.serve.whole import CODE, check, collect

if TYPE_CHECKING:
    from pathlib import Path

    from capsule import AsyncSession
    from tests.acceptance.serve.support import Served

pytestmark = pytest.mark.anyio

CLIENTS = 3
ROUNDS = 8


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients that notice a mute connection soon."""
    monkeypatch.setattr(link, "HEARTBEAT", 0.1)
    monkeypatch.setattr(link, "CONNECT_TIMEOUT", 0.5)


async def rounds_through_faults(served: Served, place: Path, seed: int, rounds: int) -> FaultyProxy:
    """Several clients at once, each with a session of its own."""

    async def use(session: AsyncSession) -> None:
        for number in range(1, rounds + 1):
            counting = f"count = globals().get('count', 0) + 1; assert count == {number}; number"
            async with asyncio.timeout(LONG):
                check(await collect(session, CODE + counting))

    async with FaultyProxy(place, served.address, seed) as proxy, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(AsyncClient(proxy.address)) for _ in range(CLIENTS)]
        async with asyncio.TaskGroup() as group:
            sessions = [await opened(client) for client in clients]
            for session in sessions:
                group.create_task(use(session))
        proxy.heal()
        return proxy


async def opened(client: AsyncClient) -> AsyncSession:
    """A session; the first connection of a client is the caller's to try again."""
    while True:
        try:
            return await client.session()
        except CapsuleError as error:
            if not error.retryable:
                raise


@pytest.mark.slow
@pytest.mark.parametrize("seed", [7, 8])
async def test_events_are_whole_on_a_network_that_fails_in_every_way(served: Served, place: Path, seed: int) -> None:
    proxy = await rounds_through_faults(served, place, seed, ROUNDS)
    assert len(proxy.fates) >= len(KINDS) - 2
