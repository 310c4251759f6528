"""A service whose verdicts a Resonate server gives: whoever settles a promise there is heard by those who wait here."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from capsule.events import Finished
from capsule_bridge import promise_id
from capsule_protocol.errors import StoreError
from tests.acceptance.durable.test_questions import asked
from tests.acceptance.serve.support import LONG, Served
from tests.acceptance.stores.support import begun, killed
from tests.unit.bridge.resonate.support import KINDS, Server, line_to, running

pytestmark = pytest.mark.anyio


@pytest.fixture(params=KINDS)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with running(request.param) as one:
        one.clock(int(time.time() * 1000))
        yield one


@pytest.fixture
def served(server: Server, place: Path) -> Iterator[Served]:
    with Served(place / "node", config(server.url)) as node:
        yield node


def config(url: str) -> str:
    return f'[store]\nurl = "resonate+{url}"\ntoken = "s3cret"\n'


def settle(server: Server, id_: str, state: str, text: str) -> dict[str, Any]:
    """As somebody who knows of Capsule only the promise."""
    value = {"headers": {}, "data": base64.b64encode(text.encode()).decode()}
    return server.call("promise.settle", id=id_, state=state, value=value)


async def test_what_runs_is_judged_at_the_server(server: Server, served: Served) -> None:
    async with served.client() as client:
        session = await client.session()
        result = await session.run("print('said'); 6 * 7", key="k")
        assert (result.text, result.stdout) == ("42", "said\n")
        assert (await session.run("print('said'); 6 * 7", key="k")).stdout == "said\n"
        found = server.call("promise.get", id=promise_id(result.execution_id))
        assert found["state"] == "resolved"


@pytest.mark.parametrize(
    ("state", "text", "heard"),
    [("resolved", "yes", "yes"), ("resolved", "5", "5"), ("rejected", "nobody here", "EOFError: nobody here")],
)
async def test_a_question_that_is_answered_at_the_server_is_heard_by_the_code(
    server: Server, served: Served, state: str, text: str, heard: str
) -> None:
    code = "try: heard = input('Deploy? ')\nexcept Exception as e: heard = f'{type(e).__name__}: {e}'\nheard"
    async with served.client() as client:
        session = await client.session()
        execution = session.start(code, {}, allow_input=True)
        request = await asked(execution)
        assert settle(server, request.promise, state, text)["state"] == state
        assert (await execution.result()).text == repr(heard)
        shown = await client.promise(request.promise)
        assert (shown.state, shown.value) == (state, text if state == "resolved" else None)


async def test_an_execution_that_is_settled_at_the_server_is_interrupted_and_its_client_hears_why(
    server: Server, served: Served, place: Path
) -> None:
    mark, ended = place / "mark", place / "ended"
    code = (
        f"import time\nopen({str(mark)!r}, 'x')\nprint('runs', flush=True)\n"
        f"try: time.sleep(600)\nfinally: open({str(ended)!r}, 'x')"
    )
    async with served.client() as client, served.client() as other:
        session = await client.session()
        running = session.stream(code, key="k")
        told = []
        while getattr(event := await anext(running), "text", "") != "runs\n":
            told.append(event)
        told.append(event)
        assert settle(server, promise_id(running.execution_id), "rejected_canceled", "not today")
        told += [event async for event in running]
        last = told[-1]
        assert isinstance(last, Finished)
        assert (last.verdict, last.sequence) == ("interrupted", len(told))
        assert last.error is not None
        assert (last.error.code, last.error.retryable) == ("execution_cancelled", False)  # it had begun
        assert last.error.message.endswith("as rejected_canceled: not today")
        handle = other.execution(running.execution_id)
        assert [event async for event in handle.events()] == told
        assert (await handle.result(LONG)).verdict == "interrupted"
        assert (await session.run("6 * 7")).text == "42"  # behind the interrupted one
        assert ended.exists()
        async with session.stream(code, key="k") as again:
            assert [event async for event in again] == told


async def test_a_server_that_is_away_stops_the_intake_and_it_goes_on_when_it_is_back(
    server: Server, place: Path
) -> None:
    mark, go = place / "mark", place / "go"
    code = f"import os, time\nopen({str(mark)!r}, 'x')\nwhile not os.path.exists({str(go)!r}): time.sleep(0.01)\n'done'"
    async with line_to(server) as line:
        with Served(place / "node", config(line.url)) as served:
            async with served.client() as client:
                session = await client.session(name="work")
                running = session.submit(code)
                await begun(running, mark)
                line.manners = ["cut before"] * 10_000
                go.touch()
                with pytest.raises(StoreError) as caught:
                    await session.run("1", key="k")
                assert caught.value.code == "store_unavailable"
                assert not running.done
                line.manners.clear()
                async with asyncio.timeout(LONG):
                    assert (await running.result()).text == "'done'"
                    assert (await session.run("1", key="k")).text == "1"
            assert served.stop() == 0
    assert any(b"Bearer s3cret" in head for head in line.heads)


async def test_a_service_that_is_killed_finds_its_own_again(server: Server, place: Path) -> None:
    with Served(place / "node", config(server.url)) as first:
        async with first.client() as client:
            session = await client.session(name="work")
            kept = await session.run("6 * 7", key="k")
            await session.detach()
        killed(first)
    with Served(place / "node", config(server.url)) as second:
        async with second.client() as client:
            again = await client.attach("work")
            assert (await again.run("6 * 7", key="k")).text == kept.text
        assert "s3cret" not in second.log.read_text()
