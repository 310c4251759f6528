"""Output that comes after its verdict is shown to watchers too: in its place, bounded, and told when it is left out."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import pytest

from capsule import Finished
from capsule.events import Gap, Output
from tests.acceptance.serve.support import LONG, Served, through_proxy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from capsule import AsyncClient, AsyncSession, Event

pytestmark = pytest.mark.anyio

THREAD = r"""
import sys, threading
go, done = threading.Event(), threading.Event()
def late():
    for _ in range(ROUNDS):
        go.wait()
        go.clear()
        sys.stdout.write("late\n")
        done.set()
threading.Thread(target=late).start()
"""
AROUND = """
print("before", flush=True)
go.set(); done.wait(); done.clear()
print("after", flush=True)
"""
READER = """
import threading
def listen(path):
    with open(path, "rb+", buffering=0) as pipe:  # for writing too: so it has no end
        while line := pipe.readline():
            print("x" * SIZE + line.decode(), end="", flush=True)
threading.Thread(target=listen, args=(PATH,), daemon=True).start()
"""
"""A thread that says by itself what the test writes into a named pipe: no execution has a part in it."""


async def until(events: AsyncIterator[Event], last: Callable[[Event], bool]) -> list[Event]:
    told: list[Event] = []
    async with asyncio.timeout(LONG):
        async for event in events:
            told.append(event)
            if last(event):
                break
    return told


def shows(text: str) -> Callable[[Event], bool]:
    return lambda event: isinstance(event, Output) and event.text.endswith(f"{text}\n")


class Speaker:
    """Has code say things when nothing runs."""

    def __init__(self, place: Path) -> None:
        self.path = place / "says"

    async def begin(self, session: AsyncSession, size: int) -> str:
        os.mkfifo(self.path)
        code = READER.replace("SIZE", str(size)).replace("PATH", repr(str(self.path)))
        return (await session.run(code)).execution_id

    async def say(self, *texts: object) -> None:
        await asyncio.to_thread(self.path.write_text, "".join(f"{text}\n" for text in texts))


@pytest.fixture
async def driver(remote: AsyncClient) -> AsyncIterator[tuple[AsyncSession, asyncio.Queue[Event]]]:
    told: asyncio.Queue[Event] = asyncio.Queue()
    async with remote.session(name="heard", on_background=told.put_nowait) as session:
        yield session, told


@pytest.fixture
def speaker(place: Path) -> Iterator[Speaker]:
    made = Speaker(place)
    yield made
    made.path.unlink()


async def test_it_comes_behind_its_verdict_and_between_what_came_before_and_after_it(
    served: Served, driver: tuple[AsyncSession, asyncio.Queue[Event]]
) -> None:
    session, _ = driver
    rounds = 20
    async with served.client() as client:
        events = (await client.attach("heard", watch=True)).watch()
        first = await session.run(f"ROUNDS = {rounds}\n{THREAD}")
        begun = await until(events, lambda event: isinstance(event, Finished))
        assert begun[-1].execution_id == first.execution_id
        for _ in range(rounds):
            around = await session.run(AROUND)
            told = await until(events, lambda event: isinstance(event, Finished))
            assert [(event.text, event.execution_id) for event in told if isinstance(event, Output)] == [
                ("before\n", around.execution_id),
                ("late\n", first.execution_id),
                ("after\n", around.execution_id),
            ]
            numbers = [event.sequence for event in told]
            assert [number for number in numbers if number] == list(range(1, len(told)))
            assert numbers.count(0) == 1


async def test_what_nothing_runs_for_flows_as_it_is_read(
    served: Served, driver: tuple[AsyncSession, asyncio.Queue[Event]], speaker: Speaker
) -> None:
    """More than may be on its way at once: so it is acknowledged, although it has no numbers."""
    session, _ = driver
    async with served.client() as client:
        events = (await client.attach("heard", watch=True)).watch()
        begun = await speaker.begin(session, 30_000)
        await until(events, lambda event: isinstance(event, Finished))
        for number in range(120):
            await speaker.say(number)
            told = await until(events, shows(str(number)))
            assert not [event for event in told if isinstance(event, Gap)]
            assert {(event.execution_id, event.sequence) for event in told} == {(begun, 0)}
            assert sum(len(getattr(event, "text", "")) for event in told) == 30_001 + len(str(number))


async def test_a_watcher_that_is_slow_is_told_how_much_it_missed(
    served: Served, driver: tuple[AsyncSession, asyncio.Queue[Event]], speaker: Speaker
) -> None:
    session, heard = driver
    async with served.client() as client:
        events = (await client.attach("heard", watch=True)).watch()
        await speaker.begin(session, 30_000)
        await until(events, lambda event: isinstance(event, Finished))
        count = 0
        for number in range(10):  # 3 MB; no more at once than what a client takes that hears all of it
            await speaker.say(*range(10), f"end {number}")
            async with asyncio.timeout(LONG):
                count += 1
                while not shows(f"end {number}")(await heard.get()):
                    count += 1
        told = await until(events, lambda event: isinstance(event, Gap))
        (gap,) = told[-1:]
        assert isinstance(gap, Gap)
        assert (gap.execution_id, gap.sequence) == ("", 0)
        assert len(told) - 1 + gap.missing == count
        assert gap.missing > 10
        await speaker.say("again")
        assert len(await until(events, shows("again"))) <= 2  # at most one for each part of it: nothing is missing
        assert (await session.run("6 * 7")).text == "42"
        last = (await until(events, lambda event: isinstance(event, Finished)))[-1]
        assert getattr(last, "text", "") == "42"


async def test_it_goes_on_after_a_lost_connection(
    served: Served, place: Path, driver: tuple[AsyncSession, asyncio.Queue[Event]], speaker: Speaker
) -> None:
    session, _ = driver
    await speaker.begin(session, 30_000)
    async with through_proxy(served, place) as (proxy, client):
        watched = await client.attach("heard", watch=True)
        events = watched.watch()
        for cut in range(3):
            for number in range(50):
                await speaker.say(f"{cut} {number}")
                told = await until(events, shows(f"{cut} {number}"))
                assert not [event for event in told[1:] if isinstance(event, Gap)]  # one for the cut
            proxy.cut()
            await watched.info()  # the connection is there again
        assert proxy.connections == 4


async def test_it_waits_for_the_verdict_that_a_slow_driver_holds_up(
    served: Served, remote: AsyncClient, speaker: Speaker
) -> None:
    """The execution has ended, but its client has not read so far: nor have the watchers been told."""
    session = await remote.session(name="held up")
    async with served.client() as client:
        events = (await client.attach("held up", watch=True)).watch()
        await speaker.begin(session, 0)
        await until(events, lambda event: isinstance(event, Finished))
        async with session.stream("for n in range(50): print('x' * 30_000, flush=True)") as stream:
            driven = [await anext(stream)]
            async with asyncio.timeout(LONG):
                while [one.state for one in await remote.sessions() if one.id == session.id] != ["ready"]:
                    await asyncio.sleep(0.001)
            await speaker.say("late")
            while not isinstance(driven[-1], Finished):
                await until(events, lambda event: event.sequence == driven[-1].sequence)
                driven.append(await anext(stream))
            told = await until(events, shows("late"))
        assert told[-2] == driven[-1]
    await session.close()
