"""A service keeps the questions of running code as promises: they wait, and the first answer counts."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import psutil
import pytest
from msgpack import unpackb

from capsule.events import InputRequest
from capsule.runtime import STORE
from capsule_bridge import SqliteStore, promise_id
from capsule_bridge.bridge import wall_clock
from capsule_protocol.errors import SessionError
from tests.acceptance.serve.support import LONG, Served

if TYPE_CHECKING:
    from pathlib import Path

    from capsule import AsyncExecution
    from capsule_bridge import Promise

pytestmark = pytest.mark.anyio

LIMIT = 5.0
"""Seconds that code may take, without those in which it waits."""


async def asked(execution: AsyncExecution) -> InputRequest:
    """The first question of its code."""
    async with asyncio.timeout(LONG):
        while (event := await execution.next_event()) is not None:
            if isinstance(event, InputRequest):
                return event
    raise AssertionError("it asked nothing")


async def kept(directory: Path, *ids: str) -> list[Promise]:
    """What the store of a service that has ended has of these."""
    store = SqliteStore(directory / STORE)
    try:
        return [await store.get(id_, now=wall_clock()) for id_ in ids]
    finally:
        await store.close()


async def test_each_question_is_a_promise_with_the_answer_that_the_code_heard(place: Path) -> None:
    told: list[InputRequest] = []

    def answer(request: InputRequest) -> str:
        told.append(request)
        if len(told) == 3:
            raise EOFError
        return f"answer {len(told)}"

    code = (
        "import getpass\na, b = input('a? '), getpass.getpass('b? ')\ntry: input()\nexcept EOFError: c = 'end'\na, b, c"
    )
    with Served(place / "node") as served:
        async with served.client() as client:
            session = await client.session()
            execution = session.start(code, {}, on_input=answer)
            assert (await execution.result()).text == "('answer 1', 'answer 2', 'end')"
        assert served.stop() == 0
    ids = [promise_id(execution.execution_id, "input", n) for n in (1, 2, 3)]
    assert [request.promise for request in told] == ids
    line, password, end = await kept(served.directory, *ids)
    assert (line.kind, line.parent, line.state) == ("input", promise_id(execution.execution_id), "resolved")
    assert unpackb(line.value)["value"] == "answer 1"
    assert password.state == "resolved"
    assert b"answer 2" not in password.value
    assert end.state == "rejected"


async def test_without_permission_to_ask_it_is_the_end_at_once_and_no_promise(place: Path) -> None:
    with Served(place / "node") as served:
        async with served.client() as client:
            session = await client.session()
            result = await session.run("input()")
            assert result.error is not None
            assert (result.error.name, result.error.code) == ("EOFError", "no_input_client")
        assert served.stop() == 0
    with pytest.raises(SessionError) as caught:
        await kept(served.directory, promise_id(result.execution_id, "input", 1))
    assert caught.value.code == "promise_unknown"


async def test_a_question_that_nobody_answers_in_time_times_out(place: Path) -> None:
    with Served(place / "node") as served:
        async with served.client() as client:
            session = await client.session(input_timeout=0.3)
            execution = session.start("input()", {}, allow_input=True)
            result = await execution.result()
            assert result.error is not None
            assert (result.error.name, result.error.code) == ("InputTimeoutError", "input_timeout")
        assert served.stop() == 0
    (promise,) = await kept(served.directory, promise_id(execution.execution_id, "input", 1))
    assert promise.state == "rejected_timedout"


async def test_a_question_stays_open_while_nobody_is_attached(place: Path) -> None:
    with Served(place / "node") as served:
        async with served.client() as client:
            session = await client.session(name="work")
            execution = session.start("'heard ' + input()", {}, allow_input=True, key="k")
            request = await asked(execution)
            await session.detach()
            async with served.client() as other:
                again = await other.attach("work")
                resumed = again.start("'heard ' + input()", {}, allow_input=True, key="k")
                assert await asked(resumed) == request
                resumed.reply(request, "Ada")
                assert (await resumed.result()).text == "'heard Ada'"


async def test_a_question_stays_open_when_its_node_dies_and_the_next_one_takes_the_session_over(place: Path) -> None:
    code = "a, b = input('a? '), input('b? ')\na, b"
    with Served(place / "node", linger=LONG) as first:
        async with first.client() as client:
            session = await client.session()
            execution = session.start(code, {}, allow_input=True, timeout=LIMIT)
            execution.reply(await asked(execution), "before")
            request = await asked(execution)
            first.kill()
            first.process.wait(LONG)
            await asyncio.sleep(LIMIT)  # the question waits longer than the code may take
            with Served(first.directory, linger=LONG) as second:
                async with second.client() as other, asyncio.timeout(LONG):
                    waiting = [one.id for one in await other.promises() if one.kind == "input"]
                    assert waiting == [request.promise]
                    assert (await other.settle_promise(request.promise, value="after")).decided
                    assert (await execution.result()).text == "('before', 'after')"
                assert second.stop() == 0
    before, after = await kept(first.directory, *(promise_id(execution.execution_id, "input", n) for n in (1, 2)))
    assert [unpackb(one.value)["value"] for one in (before, after)] == ["before", "after"]


async def test_what_a_lost_execution_had_asked_is_canceled(place: Path) -> None:
    with Served(place / "node") as served:
        async with served.client() as client:
            session = await client.session()
            execution = session.start("input()", {}, allow_input=True)
            request = await asked(execution)
            psutil.Process((await session.info()).pid).kill()
            async with asyncio.timeout(LONG):
                assert (await execution.result()).verdict == "crashed"
            assert served.stop() == 0
    (promise,) = await kept(served.directory, request.promise)
    assert promise.state == "rejected_canceled"
