"""Connections are cut, at any moment and in the midst of a message: no event is lost, none comes twice."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from typing import TYPE_CHECKING

import psutil
import pytest

from capsule import Finished, InputRequest, NodeError, SessionError
from capsule.client.remote import link as remote_link
from tests.acceptance.serve.support import LONG, Served, through_proxy
from tests.acceptance.serve.whole import survive_cuts

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio

ROUNDS = 60
SEED = 4


async def test_events_are_whole_whenever_the_connection_is_cut(served: Served, place: Path) -> None:
    chance = random.Random(SEED)
    async with through_proxy(served, place) as (proxy, client), client.session() as session:
        await survive_cuts(proxy, session, chance, ROUNDS, smallest=1)


async def test_code_is_not_run_twice_when_its_request_or_acknowledgement_is_lost(served: Served, place: Path) -> None:
    chance = random.Random(SEED)
    async with through_proxy(served, place) as (proxy, client), client.session() as session:
        await session.run("count = 0")
        for _ in range(ROUNDS):
            running = session.submit("count += 1")
            for _ in range(chance.randrange(6)):
                await asyncio.sleep(0)
            proxy.cut()
            async with asyncio.timeout(LONG):
                assert (await running.result()).verdict == "ok"
        assert (await session.run("count")).text == str(ROUNDS)


async def test_a_subshell_that_is_being_opened_is_opened_once(served: Served, place: Path) -> None:
    async with through_proxy(served, place) as (proxy, client), client.session() as session:
        for turns in range(20):
            opening = asyncio.ensure_future(session._inner.ask("subshell", {"action": "open"}))
            for _ in range(turns):
                await asyncio.sleep(0)
            proxy.cut()
            async with asyncio.timeout(LONG):
                told = await opening
                assert told["subshells"] == [told["subshell"]]
                await session.run("1")  # from here on the connection is whole again
                await session._inner.ask("subshell", {"action": "close", "subshell": told["subshell"]})


async def test_a_session_that_is_being_opened_is_opened_once(served: Served, place: Path) -> None:
    async with through_proxy(served, place) as (proxy, client):
        before = (await client.info()).sessions
        for turns in range(20):
            opening = asyncio.ensure_future(client.session().open())
            for _ in range(turns):
                await asyncio.sleep(0)
            proxy.cut()
            async with asyncio.timeout(LONG):
                session = await opening
                assert (await session.run("1")).text == "1"
                assert (await client.info()).sessions == before + 1
                await session.close()


async def test_a_caller_that_is_cancelled_leaves_no_session(served: Served) -> None:
    async with served.client() as client:
        before = (await client.info()).sessions
        for turns in range(12):
            opening = asyncio.ensure_future(client.session().open())
            for _ in range(turns):
                await asyncio.sleep(0.001)
            opening.cancel()
            with suppress(asyncio.CancelledError):
                await (await opening).close()
        async with asyncio.timeout(LONG):
            while (await client.info()).sessions != before:
                await asyncio.sleep(0.01)


async def test_an_answer_that_is_given_while_the_connection_is_cut_arrives(served: Served, place: Path) -> None:
    async with through_proxy(served, place) as (proxy, client), client.session() as session:

        def answer(_request: InputRequest) -> str:
            proxy.cut()
            return "Ada"

        for _ in range(10):
            async with asyncio.timeout(LONG):
                assert (await session.run("input()", on_input=answer)).text == "'Ada'"


async def test_what_was_asked_for_meanwhile_is_done_when_the_connection_is_back(served: Served, place: Path) -> None:
    async with through_proxy(served, place) as (proxy, client), client.session() as session:
        await session.run("alpha = 1")
        proxy.shut = True
        proxy.cut()
        execution = session.submit("alpha + 1")
        asked = asyncio.ensure_future(session.complete("alph"))
        await asyncio.sleep(0)
        proxy.shut = False
        async with asyncio.timeout(LONG):
            assert (await execution.result()).text == "2"
            assert "alpha" in (await asked).matches


async def test_a_connection_that_does_not_come_back_ends_what_waits_for_it(
    served: Served, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_link, "RECONNECT_TIMEOUT", 0.2)
    async with through_proxy(served, place) as (proxy, client):
        session = await client.session()
        running = session.submit("import time; time.sleep(1000)")
        proxy.shut = True
        proxy.cut()
        async with asyncio.timeout(LONG):
            with pytest.raises(NodeError) as caught:
                await running.result()
        assert caught.value.code == "connection_lost"
        with pytest.raises((NodeError, SessionError)):
            await session.run("1")
    async with served.client() as other:  # as the client would, had it not given up
        again = await other.attach(session.id)
        await again.close()


async def test_a_client_that_never_reads_holds_up_its_own_code_only(served: Served) -> None:
    async with served.client() as client, client.session() as endless, client.session() as other:
        node = psutil.Process(served.process.pid)
        async with endless.stream("while True: print('x' * 1000)") as events:
            await anext(aiter(events))
            before = node.memory_info().rss
            for _ in range(200):
                assert (await other.run("1")).text == "1"
            assert node.memory_info().rss - before < 32 * 2**20
            assert (await endless.info()).state == "busy"
        assert (await endless.run("2")).text == "2"


async def test_output_that_nobody_reads_after_a_detach_is_dropped_and_told(forgetful: Served) -> None:
    async with forgetful.client() as first:
        session = await first.session(name="loud")
        await session.run("go = __import__('threading').Event()")
        code = "for n in range(20_000): print(n, 'x' * 1000)\nn"
        running = session.submit(code, key="loud")
        async with asyncio.timeout(LONG):
            while running.state != "running":
                await asyncio.sleep(0.001)
        await session.detach()
    async with forgetful.client() as second:
        again = await second.attach("loud")
        async with asyncio.timeout(LONG):
            await again.run("done = 1")  # what was under way has ended
            async with again.stream(code, key="loud") as events:
                told = [event async for event in events]
        gaps = [event for event in told if type(event).__name__ == "Gap"]
        assert len(gaps) == 1
        assert gaps[0].sequence == gaps[0].missing  # type: ignore[attr-defined]  # a Gap
        assert [event.sequence for event in told] == list(range(told[0].sequence, told[0].sequence + len(told)))
        assert isinstance(told[-1], Finished)
        assert told[-1].text == "19999"
        await again.close()
