"""Executions by their id, from other processes and later."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from capsule import ArgumentError, Client, SessionError
from capsule.events import Finished, Gap, Started
from capsule.node.front.requests import MAX_REQUESTS
from tests.acceptance.serve.support import LONG, Served

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.anyio


@pytest.fixture
def served(place: Path) -> Iterator[Served]:
    with Served(place / "node") as running:
        yield running


async def test_what_it_told_is_read_from_another_connection_while_it_runs_and_to_its_verdict(
    served: Served, place: Path
) -> None:
    go = place / "go"
    code = f"import os\nprint('one', flush=True)\nwhile not os.path.exists({str(go)!r}): pass\nprint('two')\n6 * 7"
    async with served.client() as owner, served.client() as other:
        session = await owner.session()
        own = session.stream(code)
        await anext(own)  # it has been accepted
        events = []
        async with asyncio.timeout(LONG):
            async for event in other.execution(own.execution_id).events():
                events.append(event)
                if getattr(event, "text", "") == "one\n":
                    go.touch()
        assert isinstance(events[0], Started)
        assert [event.sequence for event in events] == list(range(1, len(events) + 1))
        assert isinstance(events[-1], Finished)
        assert events[-1].text == "42"
        assert [event async for event in other.execution(own.execution_id).events(after=2)] == events[2:]
        assert (await own.result()).text == "42"


def test_the_result_is_there_for_another_process_after_the_session_and_the_node(served: Served) -> None:
    with Client(served.address) as client, client.session() as session:
        name = session.run("print('said'); 6 * 7").execution_id
    served.kill()
    served.process.wait(LONG)
    program = f"""
import capsule
with capsule.Client({served.address!r}) as client:
    result = client.execution({name!r}).result(timeout=30)
    print(result.verdict, result.text, result.stdout.strip(), len(list(client.execution({name!r}).events())))
"""
    with Served(served.directory):
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert not done.stderr
    assert done.stdout.split() == ["ok", "42", "said", "3"]


async def test_a_verdict_relies_on_nothing_that_is_not_kept_any_more(served: Served) -> None:
    behind = "for n in range(40_000): print('x' * 1000)"
    async with served.client() as client:
        session = await client.session()
        await session.run(f"def show():\n    {behind}\nget_ipython().events.register('post_execute', show)")
        result = await session.run("6 * 7", payloads=True)
        assert result.shown  # by a display before what `show` writes
        events = [event async for event in client.execution(result.execution_id).events()]
    assert isinstance(events[0], Gap)
    assert isinstance(events[-1], Finished)
    assert (events[-1].text, events[-1].shown) == ("42", False)


async def test_an_execution_is_cancelled_by_its_id(served: Served) -> None:
    async with served.client() as owner, served.client() as other:
        session = await owner.session()
        running = session.stream("import time\nwhile True: time.sleep(0.01)")
        await anext(running)
        handle = other.execution(running.execution_id)
        async with asyncio.timeout(LONG):
            async for _ in handle.events():
                break
            assert await handle.cancel()
            assert (await handle.result()).verdict == "interrupted"
            assert not await handle.cancel()
            async with session.stream("print('runs', flush=True); import time; time.sleep(600)") as events:
                await anext(events)  # it has been accepted
                with pytest.raises(TimeoutError):
                    await other.execution(events.execution_id).result(timeout=0.5)


async def test_what_waits_is_cancelled_in_the_same_way_at_the_worker_and_at_the_node(served: Served) -> None:
    """Seven executions behind the one that runs are at the worker; nobody has to know that to read the verdict."""
    async with served.client() as client, client.session() as session:
        session.submit("import time; time.sleep(600)")
        waiting = [session.submit("1") for _ in range(10)]
        await waiting[-1].accepted(LONG)
        told = []
        for each in (waiting[0], waiting[-1]):
            assert await client.execution(each.execution_id).cancel()
            result = await each.result(LONG)
            assert result.error is not None
            told.append((result.verdict, result.error.name, result.error.code, result.error.retryable))
    assert told == [("interrupted", "cancelled", "execution_cancelled", True)] * 2


async def test_what_is_not_there_is_unknown_and_what_is_no_number_is_refused(served: Served) -> None:
    async with served.client() as client:
        with pytest.raises(SessionError) as caught:
            await client.execution("x_nothing").result()
        assert caught.value.code == "execution_unknown"
        with pytest.raises(ValueError, match="after"):
            await anext(client.execution("x_nothing").events(after=-1))


async def test_behind_what_it_has_not_told_nobody_goes_on(served: Served, place: Path) -> None:
    """It ended silently, or never while the code ran."""
    go = place / "go"
    code = f"import os\nprint('one', flush=True)\nwhile not os.path.exists({str(go)!r}): pass"
    async with served.client() as client, asyncio.timeout(LONG):
        session = await client.session()
        running = session.stream(code)
        await anext(running)  # it has been accepted
        handle = client.execution(running.execution_id)
        with pytest.raises(ArgumentError, match=r"after.* is 9\b.*at most [12], the last event"):
            await anext(handle.events(after=9))
        go.touch()
        last = [event async for event in handle.events()][-1].sequence
        assert [event async for event in handle.events(after=last)] == []
        with pytest.raises(ArgumentError, match=rf"is {last + 1}\b.*at most {last}, the last event"):
            await anext(handle.events(after=last + 1))


@pytest.mark.parametrize("wrong", ["", "x" * 1001])
async def test_what_can_be_no_id_is_refused_at_once(served: Served, wrong: str) -> None:
    async with served.client() as client:
        with pytest.raises(ArgumentError, match="characters"):
            await client.execution(wrong).result()
        with pytest.raises(ArgumentError, match="characters"):
            await client.promise(wrong)
        with pytest.raises(ArgumentError, match="characters"):
            await client.settle_promise(wrong, "reject")


def test_all_handles_wait_no_longer_than_they_are_told(served: Served, place: Path) -> None:
    go = place / "go"
    with Client(served.address) as client, client.session() as session:
        running = session.submit(f"import os\nprint('begun')\nwhile not os.path.exists({str(go)!r}): pass\n1")
        by_id = client.execution(running.execution_id)
        with pytest.raises(TimeoutError, match=rf"{running.execution_id} has no verdict after 0.05 s, and goes on"):
            running.result(timeout=0.05)
        with pytest.raises(TimeoutError):
            by_id.result(timeout=0.05)
        go.touch()
        for handle in (running, by_id):
            result = handle.result(timeout=LONG)
            assert (result.text, result.stdout) == ("1", "begun\n")


async def test_what_was_just_asked_for_is_known_by_its_id(served: Served) -> None:
    async with served.client() as client:
        session = await client.session()
        for number in range(20):
            name = session.submit(str(number)).execution_id
            assert (await client.execution(name).result(LONG)).text == str(number)


async def test_any_number_of_callers_may_wait_at_once_and_hold_up_nobody(served: Served, place: Path) -> None:
    go = place / "go"
    async with served.client() as owner, served.client() as other:
        session = await owner.session()
        done = (await session.run("6 * 7")).execution_id
        running = session.stream(f"import os\nwhile not os.path.exists({str(go)!r}): pass\n1")
        await anext(running)  # it has been accepted
        handle = other.execution(running.execution_id)
        many = [asyncio.create_task(handle.result()) for _ in range(MAX_REQUESTS + 50)]
        async with asyncio.timeout(LONG):
            assert (await other.execution(done).result()).text == "42"
            assert (await asyncio.gather(*(other.execution(done).result() for _ in many)))[-1].text == "42"
            assert not any(one.done() for one in many)
            go.touch()
            assert {(await one).text for one in many} == {"1"}


def test_what_was_accepted_is_found_though_whoever_asked_for_it_is_gone(served: Served) -> None:
    with Client(served.address) as client:
        client.session(name="work").detach()
        program = f"""
import capsule, os
execution = capsule.Client({served.address!r}).attach("work").submit("6 * 7")
execution.accepted()
os.write(1, execution.execution_id.encode())
os._exit(0)
"""
        told = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, timeout=LONG)
        assert client.execution(told.stdout.decode()).result(timeout=LONG).text == "42"


async def test_what_is_refused_is_never_accepted(served: Served) -> None:
    async with served.client() as client, asyncio.timeout(LONG):
        session = await client.session()
        first = session.submit("1", key="k")
        await first.accepted()
        await first.accepted()
        assert (await first.result()).text == "1"
        for options, code in ({"key": "k"}, "idempotency_conflict"), ({"if_epoch": 7}, "epoch_mismatch"):
            other = session.submit("2", **options)
            asking = [asyncio.ensure_future(other.accepted()) for _ in range(2)]
            for outcome in await asyncio.gather(*asking, return_exceptions=True):
                assert isinstance(outcome, SessionError)
                assert outcome.code == code
        running = session.submit("import time; time.sleep(600)")
        await running.accepted(timeout=LONG)
        assert await running.cancel()
