"""Every answer says in which epoch its session is, and every verdict in which epoch its code ran."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from capsule import AsyncClient, SessionError
from tests.acceptance.serve.raw import Raw
from tests.acceptance.serve.support import LONG, Served

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from capsule_protocol.envelope import Envelope

pytestmark = pytest.mark.anyio


@pytest.fixture
def served(place: Path) -> Iterator[Served]:
    with Served(place / "node") as running:
        yield running


def test_all_that_is_said_of_a_session_has_its_epoch(served: Served) -> None:
    with Raw(served.address) as raw, Raw(served.address) as watcher:
        raw.greet()
        session = raw.open(name="work")
        watcher.greet("c_watcher")
        watcher.say("attach", {"name": "work", "watch": True}, id_="m_watch")
        watcher.answer("m_watch")
        say_all_there_is(raw, watcher, session)


def say_all_there_is(raw: Raw, watcher: Raw, session: str) -> None:
    for epoch in (1, 2):
        raw.say("execute", {"code": "print(1); 1"}, session, f"x_{epoch}")
        told = heard_to(raw, "result")
        assert {message.epoch for message in told if message.session} == {epoch}
        assert {"ack", "output", "result"} <= {message.type for message in told}
        assert {message.epoch for message in heard_to(watcher, "result") if message.session} == {epoch}
        raw.say("execute", {"code": "1 / 0", "if_epoch": 7}, session, f"x_other_{epoch}")
        refused = heard_to(raw, "error")[-1]
        assert (refused.body["code"], refused.epoch) == ("epoch_mismatch", epoch)
        for kind, body in (
            ("complete", {"code": "pri", "cursor": 3}),
            ("info", {}),
            ("interrupt", {}),
            ("namespace_summary", {"subshell": "there is none"}),
        ):
            raw.say(kind, body, session, id_=f"m_{kind}")
            assert raw.answer(f"m_{kind}").epoch == epoch, kind
        if epoch == 1:
            raw.say("restart", {}, session, id_="m_restart")
            assert raw.answer("m_restart").epoch == 2


def test_who_does_not_have_a_session_is_not_told_its_epoch(served: Served) -> None:
    with Raw(served.address) as raw, Raw(served.address) as other:
        raw.greet()
        session = raw.open()
        other.greet("c_other")
        other.say("complete", {"code": "pri", "cursor": 3}, session, id_="m_1")
        assert other.answer("m_1").epoch == 0


async def test_a_verdict_says_whose_state_its_code_has_changed(served: Served) -> None:
    async with served.client() as client:
        session = await client.session()
        made = await session.run("state = 1", key="k")
        assert (made.epoch, session.epoch) == (1, 1)
        assert (await session.run("state", if_epoch=made.epoch)).text == "1"
        assert (await session.run("1 / 0")).epoch == 1
        await session.restart()
        again = await session.run("state = 1", key="k")  # the answer of before: nothing has run
        assert (again.epoch, session.epoch) == (1, 2)
        with pytest.raises(SessionError) as caught:
            await session.run("state", if_epoch=again.epoch)
        assert (caught.value.code, caught.value.details) == ("epoch_mismatch", {"epoch": 2})
        assert (await session.run("'state' in globals()", if_epoch=session.epoch)).text == "False"
        async with served.client() as other:
            assert (await other.execution(made.execution_id).result()).epoch == 1


async def test_what_was_not_sent_to_a_worker_has_no_epoch(served: Served) -> None:
    async with served.client() as client:
        session = await client.session()
        running = session.submit("import time\nwhile True: time.sleep(0.01)")
        waiting = [session.submit("1") for _ in range(100)]
        async with asyncio.timeout(LONG):
            await waiting[-1].accepted()
            await waiting[-1].cancel()
            assert (await waiting[-1].result()).epoch == 0
            await session.restart()
            assert (await running.result()).epoch == 1
            assert (await session.run("1")).epoch == 2


async def test_a_client_hears_that_another_has_restarted_the_session(served: Served) -> None:
    async with served.client() as client, served.client() as operator:
        session = await client.session(name="work")
        watch = await operator.attach("work", watch=True)
        assert (session.epoch, watch.epoch) == (1, 1)
        await session.restart()
        await session.run("1")
        async with asyncio.timeout(LONG):
            async for _ in watch.watch():
                if watch.epoch == 2:
                    return
    raise AssertionError("it was not told")


async def test_in_library_mode_it_is_the_same() -> None:
    async with AsyncClient() as client:
        session = await client.session()
        assert (await session.run("1")).epoch == 1
        await session.restart()
        assert (await session.run("1")).epoch == 2


def heard_to(raw: Raw, kind: str) -> list[Envelope]:
    """All messages up to one of this type."""
    told = []
    while (message := raw.hear()) is not None:
        told.append(message)
        if message.type == kind:
            return told
    raise AssertionError("the node has hung up")
