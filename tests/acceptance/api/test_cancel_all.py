"""All of a session is cancelled at once: what runs, what waits for its turn, and what is still on its way."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from capsule import Client
from capsule.events import Started
from tests.acceptance.serve.support import LONG, Served

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from capsule import AsyncSession

ROUNDS = 10
"""For what may begin before the worker hears that it is cancelled does so seldom."""
FOR_EVER = "import time\nwhile True: time.sleep(0.01)"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    return tmp_path


@pytest.fixture
def served(place: Path) -> Iterator[Served]:
    with Served(place / "node") as running:
        yield running


@pytest.mark.anyio
@pytest.mark.parametrize("number", [1, 5, 30])
async def test_what_runs_is_interrupted_and_what_waits_never_begins(
    session: AsyncSession, tmp_path: Path, number: int
) -> None:
    for _ in range(ROUNDS):
        await all_are_cancelled(session, tmp_path, number)


@pytest.mark.anyio
@pytest.mark.parametrize("number", [1, 5, 30])
async def test_so_it_is_at_a_service(served: Served, tmp_path: Path, number: int) -> None:
    async with served.client() as client:
        session = await client.session()
        for _ in range(ROUNDS):
            await all_are_cancelled(session, tmp_path, number)


async def all_are_cancelled(session: AsyncSession, tmp_path: Path, number: int) -> None:
    assert await session.cancel_all() == 0
    running = session.submit(FOR_EVER)
    async with asyncio.timeout(LONG):
        events = running.events()
        assert isinstance(await anext(events), Started)
        waiting = [session.submit(f"open({str(tmp_path / 'ran')!r}, 'a').write('x')") for _ in range(number)]
        assert await session.cancel_all() == number + 1
        ended = [await execution.result() for execution in (running, *waiting)]
        assert [result.verdict for result in ended] == ["interrupted"] * (number + 1)
        assert [result.error.code for result in ended[1:] if result.error] == ["execution_cancelled"] * number
        assert not (tmp_path / "ran").exists()
        assert await session.cancel_all() == 0
        assert (await session.run("6 * 7")).text == "42"  # what comes later runs


def test_without_await(served: Served) -> None:
    with Client(served.address) as client, client.session() as session:
        running = session.submit(FOR_EVER)
        running.accepted()
        assert session.cancel_all() == 1
        assert running.result(timeout=LONG).verdict == "interrupted"
