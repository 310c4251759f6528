"""One client drives a session, others watch it: they see what it sees, change nothing and hold up nobody."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from capsule import ArgumentError, AsyncClient, Client, Finished, SessionError
from capsule.events import Display, Gap, InputRequest
from capsule.node.front.watch import MAX_WATCHERS
from tests.acceptance.serve.support import LONG, Served, through_proxy
from tests.acceptance.serve.whole import CODE, check, collect

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from capsule import AsyncSession, Event

pytestmark = pytest.mark.anyio


@pytest.fixture
async def driver(remote: AsyncClient) -> AsyncIterator[AsyncSession]:
    async with remote.session(name="shared") as session:
        yield session


async def until_verdict(events: AsyncIterator[Event]) -> list[Event]:
    """The events up to the next verdict."""
    told: list[Event] = []
    async with asyncio.timeout(LONG):
        async for event in events:
            told.append(event)
            if isinstance(event, Finished):
                break
    return told


async def test_watchers_see_exactly_what_the_driver_sees(served: Served, driver: AsyncSession) -> None:
    async with served.client() as one, served.client() as two:
        watched = [(await client.attach("shared", watch=True)).watch() for client in (one, two)]
        for _ in range(3):
            seen = await collect(driver)
            check(seen)
            for events in watched:
                assert await until_verdict(events) == seen


async def test_a_watcher_gets_what_runs_from_its_beginning(served: Served, driver: AsyncSession) -> None:
    async def never(_request: InputRequest) -> str:
        await asyncio.Event().wait()
        return ""

    running = asyncio.ensure_future(driver.run("print('before')\ninput('go on? ')", on_input=never))
    async with served.client() as client:
        watched = await client.attach("shared", watch=True)
        events = watched.watch()
        told: list[Event] = []
        async with asyncio.timeout(LONG):
            async for event in events:
                told.append(event)
                if isinstance(event, InputRequest):
                    break
        assert [event.sequence for event in told] == list(range(1, len(told) + 1))
        assert "before" in "".join(getattr(event, "text", "") for event in told)
        await driver.interrupt()
        (*_, last) = await until_verdict(events)
        assert isinstance(last, Finished)
        assert (last.verdict, last.execution_id) == ("interrupted", (await running).execution_id)


async def test_whatever_would_change_the_session_is_refused(served: Served, driver: AsyncSession) -> None:
    async with served.client() as client:
        watched = await client.attach("shared", watch=True)
        for attempt in (watched.run("1"), watched.interrupt(), watched.restart(), watched.complete("pri")):
            with pytest.raises(SessionError) as caught:
                await attempt
            assert caught.value.code == "session_watched"
        assert (await watched.info()).name == "shared"
        await watched.close()
        assert (await driver.run("6 * 7")).text == "42"
        with pytest.raises(SessionError, match="watch=True") as unsupported:
            await anext(aiter(driver.watch()))
        assert unsupported.value.code == "unsupported"


async def test_a_watcher_that_is_slow_gets_a_gap_and_holds_up_nobody(served: Served, driver: AsyncSession) -> None:
    async with served.client() as client:
        events = (await client.attach("shared", watch=True)).watch()
        async with asyncio.timeout(LONG):
            for _ in range(3):
                result = await driver.run("for n in range(200): print('x' * 30_000, flush=True)\nn")
                assert len(result.stdout) == 200 * 30_001
        told = [await until_verdict(events)]
        (gap,) = [event for event in told[0] if isinstance(event, Gap)]
        assert gap.missing > 1
        numbers = [event.sequence for event in told[0]]
        assert numbers == [*range(1, gap.sequence - gap.missing + 1), *range(gap.sequence, numbers[-1] + 1)]
        async with asyncio.timeout(LONG):
            left_out = await anext(aiter(events))  # the other two
        assert isinstance(left_out, Gap)
        assert (left_out.execution_id, left_out.sequence) == ("", 0)
        assert left_out.missing > 2
        assert (await driver.run("'again'")).text == "'again'"
        rest = await until_verdict(events)
        assert not [event for event in rest if isinstance(event, Gap)]
        assert isinstance(rest[-1], Finished)
        assert rest[-1].text == "'again'"


@pytest.mark.parametrize("outcome", ["42", "1 / 0"])
async def test_a_slow_watcher_is_not_told_that_he_was_shown_what_he_was_not(
    served: Served, driver: AsyncSession, outcome: str
) -> None:
    await driver.run("get_ipython().events.register('post_execute', lambda: None)")  # as where figures may follow
    async with served.client() as client:
        events = (await client.attach("shared", watch=True)).watch()
        seen: list[Event] = []
        async with asyncio.timeout(LONG):
            code = f"for n in range(200): print('x' * 30_000, flush=True)\n{outcome}"
            await driver.run(code, payloads=True, on_event=seen.append)
        told = await until_verdict(events)
    kinds = [[type(event) for event in each if isinstance(event, Display | Gap)] for each in (seen, told)]
    assert kinds == [[Display], [Gap]]
    assert [each[-1].shown for each in (seen, told) if isinstance(each[-1], Finished)] == [True, False]


async def test_the_end_of_the_session_ends_the_stream_behind_the_verdict(served: Served, remote: AsyncClient) -> None:
    session = await remote.session(name="brief")
    async with served.client() as client:
        events = (await client.attach("brief", watch=True)).watch()
        session.submit("print('runs')\nwhile True: pass")
        async with asyncio.timeout(LONG):
            while getattr(await anext(aiter(events)), "text", "") != "runs\n":
                pass
            await session.close()
            rest = [event async for event in events]
        assert isinstance(rest[-1], Finished)
        assert rest[-1].verdict == "killed"


async def test_who_watches_is_told_that_the_session_was_killed(served: Served, remote: AsyncClient) -> None:
    session = await remote.session(name="shot")
    async with served.client() as client, asyncio.timeout(LONG):
        watched = await client.attach("shot", watch=True)
        events = watched.watch()
        session.submit("print('runs')\nwhile True: pass")
        while getattr(await anext(aiter(events)), "text", "") != "runs\n":
            pass
        await client.kill("shot")
        rest = [event async for event in events]
        assert isinstance(rest[-1], Finished)
        assert rest[-1].verdict == "killed"
        for one in (watched, session):
            while one.state not in {"closed", "dead"}:  # each client is told on its own connection
                await asyncio.sleep(0)
            with pytest.raises(SessionError) as caught:
                await one.info()
            assert caught.value.code == "session_killed"


async def test_a_watcher_that_takes_the_session_over_drives_it_and_watches_no_more(
    served: Served, driver: AsyncSession
) -> None:
    async with served.client() as client:
        events = (await client.attach("shared", watch=True)).watch()
        running = asyncio.ensure_future(driver.run("while True: pass", key="one"))
        async with asyncio.timeout(LONG):
            assert type(await anext(aiter(events))).__name__ == "Started"
            taken = await client.attach("shared")
            with pytest.raises(SessionError) as caught:
                await anext(aiter(events))
            assert caught.value.code == "session_taken"
            with pytest.raises(SessionError):
                await running
            again = taken.submit("while True: pass", key="one")
            assert await taken.interrupt()
            assert (await again.result()).verdict == "interrupted"
        await taken.close()


async def test_there_are_so_many_watchers_and_no_more(served: Served, driver: AsyncSession) -> None:
    clients = [served.client() for _ in range(MAX_WATCHERS + 1)]
    try:
        for client in clients[:-1]:
            await client.attach("shared", watch=True)
        with pytest.raises(SessionError) as caught:
            await clients[-1].attach("shared", watch=True)
        assert caught.value.code == "too_many_watchers"
        await clients[0].close()
        await clients[-1].attach("shared", watch=True)
        with pytest.raises(ArgumentError):  # it has it in this way already
            await clients[-1].attach("shared", watch=True)
        assert (await driver.run("1")).text == "1"
    finally:
        for client in clients:
            await client.close()


async def test_a_watcher_whose_connection_breaks_sees_no_event_twice(
    served: Served, place: Path, driver: AsyncSession
) -> None:
    go = place / "go"
    go.unlink(missing_ok=True)
    waiting = f"import os, time\nwhile not os.path.exists({str(go)!r}): time.sleep(0.001)\nnumber"
    async with through_proxy(served, place) as (proxy, client):
        watched = await client.attach("shared", watch=True)
        seen = asyncio.ensure_future(until_verdict(watched.watch()))
        running = asyncio.ensure_future(collect(driver, CODE + waiting))
        for _ in range(3):
            proxy.cut()
            await watched.info()  # the connection is there again
        go.touch()
        whole = await running
        check(whole)
        assert [event for event in await seen if event.execution_id] == whole
        assert proxy.connections == 4


def test_the_synchronous_client_watches_too(served: Served) -> None:
    with Client(served.address) as one, Client(served.address) as two, one.session(name="sync") as session:
        watched = two.attach("sync", watch=True)
        result = session.run("print('seen'); 6 * 7")
        told = []
        for event in watched.watch():
            told.append(event)
            if isinstance(event, Finished):
                break
        assert isinstance(told[-1], Finished)
        assert (told[-1].text, told[-1].execution_id) == ("42", result.execution_id)
        watched.close()
        assert session.run("1").text == "1"
