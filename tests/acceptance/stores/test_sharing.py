"""Nodes that share a store: each leaves what belongs to the living alone, and takes over what the dead had."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from pathlib import Path

import pytest

from capsule import SessionError
from capsule.events import Finished
from tests.acceptance.durable.test_questions import asked
from tests.acceptance.serve.support import LONG
from tests.acceptance.stores.support import attached, begun, killed, node, until

pytestmark = pytest.mark.anyio

WAITS = "import os, time\nopen({mark!r}, 'a').write('x')\nwhile not os.path.exists({go!r}): time.sleep(0.01)\n'done'"


async def test_a_node_takes_over_what_a_dead_one_had_and_runs_nothing_twice(place: Path, url: str) -> None:
    mark, done = place / "mark", place / "done"
    with node(place / "a", url) as first, node(place / "b", url) as second:
        async with first.client() as client, second.client() as other:
            session = await client.session(name="work")
            kept = await session.run("print('said'); 6 * 7", key="k")
            running = session.submit(WAITS.format(mark=str(mark), go=str(place / "never")), key="r")
            queued = [session.submit(f"open({str(done)!r}, 'a').write('{n} ')", key=f"q{n}") for n in range(20)]
            await begun(running, mark)
            async with asyncio.timeout(LONG):
                while (await session.info()).queue < len(queued) - 7:  # all that the worker does not have
                    await asyncio.sleep(0.005)
            await session.detach()
            killed(first)
            again = await attached("work", other)
            assert again.epoch == 2
            repeated = await again.run("print('said'); 6 * 7", key="k")
            assert (repeated.text, repeated.stdout) == (kept.text, kept.stdout)
            assert (await other.execution(running.execution_id).result(LONG)).verdict == "worker_lost"
            results = [await other.execution(each.execution_id).result(LONG) for each in queued]
            verdicts = [result.verdict for result in results]
            assert verdicts == ["worker_lost"] * verdicts.count("worker_lost") + ["ok"] * verdicts.count("ok")
            assert done.read_text().split() == [str(n) for n, verdict in enumerate(verdicts) if verdict == "ok"]
            assert mark.read_text() == "x"


async def test_a_living_node_is_left_alone_by_one_that_starts_and_by_one_that_has_its_lease_for_long(
    place: Path, url: str
) -> None:
    mark, go = place / "mark", place / "go"
    with node(place / "a", url) as first:
        async with first.client() as client:
            session = await client.session(name="work")
            running = session.submit(WAITS.format(mark=str(mark), go=str(go)))
            await begun(running, mark)
            with node(place / "b", url) as second, node(place / "c", url) as third:
                # That they look after the dead shows by one that they inherit of.
                async with third.client() as others:
                    await (await others.session(name="lost")).detach()
                    killed(third)
                async with second.client() as other:
                    await attached("lost", client, other)
                    assert not running.done
                    for name in ("work", session.id):
                        with pytest.raises(SessionError) as caught:
                            await other.attach(name)
                        assert caught.value.code == "session_elsewhere"
                        assert caught.value.details["node"].startswith(socket.gethostname())
                    with pytest.raises(SessionError) as caught:
                        await other.session(name="work")
                    assert caught.value.code == "name_taken"
                    with pytest.raises(SessionError) as caught:
                        await other.execution(running.execution_id).cancel()
                    assert caught.value.code == "session_elsewhere"
                    go.touch()
                    assert (await running.result()).text == "'done'"
                    assert (await other.execution(running.execution_id).result(LONG)).text == "'done'"
            assert session.epoch == 1


async def test_a_node_that_comes_back_in_time_goes_on_with_its_own_sessions_as_if_nothing_had_been(
    place: Path, url: str
) -> None:
    mark, go = place / "mark", place / "go"
    with node(place / "a", url, linger=60) as first, node(place / "b", url, linger=60):
        async with first.client() as client:
            session = await client.session(name="work")
            running = session.submit(WAITS.format(mark=str(mark), go=str(go)))
            await begun(running, mark)
            killed(first)
            with node(place / "a", url, linger=60) as again:
                go.touch()
                assert (await running.result()).text == "'done'"
                assert session.epoch == 1
                assert again.stop() == 0


async def test_the_same_key_at_two_nodes_is_one_execution_with_one_log_and_one_verdict(place: Path, url: str) -> None:
    count, go = place / "count", place / "go"
    code = WAITS.format(mark=str(count), go=str(go))
    with node(place / "a", url) as first, node(place / "b", url) as second:
        async with first.client() as client, second.client() as other:
            session = await client.session(name="work")
            running = session.stream(code, key="k")
            before = [await anext(running)]
            followed = asyncio.ensure_future(_all(other.execution(running.execution_id).events()))
            await until(count.exists)
            go.touch()
            before += [event async for event in running]
            assert await followed == before
            await session.detach()
            killed(first)
            again = await attached("work", other)
            async with again.stream(code, key="k") as events:
                assert [event async for event in events] == before
    assert isinstance(before[-1], Finished)
    assert count.read_text() == "x"


async def test_what_waits_in_a_lost_session_is_run_where_the_session_is_and_ended_nowhere_else(
    place: Path, url: str
) -> None:
    """The node that has lost it ends its sessions, and would cancel what waits in them: the verdict would stand."""
    mark, go, done = place / "mark", place / "go", place / "done"
    with node(place / "a", url) as first, node(place / "b", url) as second:
        async with first.client() as client, second.client() as other:
            session = await client.session(name="work")
            running = session.submit(WAITS.format(mark=str(mark), go=str(place / "never")))
            await begun(running, mark)
            code = WAITS.format(mark=str(done), go=str(go))
            queued = [session.submit(code, key=f"q{n}") for n in range(20)]
            async with asyncio.timeout(LONG):
                while (await session.info()).queue < len(queued) - 7:  # all that the worker does not have
                    await asyncio.sleep(0.005)
            os.kill(first.process.pid, signal.SIGSTOP)
            await attached("work", other)
            await until(done.exists)  # so the others wait
            os.kill(first.process.pid, signal.SIGCONT)
            async with asyncio.timeout(LONG):
                while True:
                    try:
                        await client.attach("work")
                    except SessionError as error:
                        if error.code in {"session_unknown", "session_elsewhere"}:  # it has let go of it
                            break
                    await asyncio.sleep(0.05)
            go.touch()
            results = [await other.execution(each.execution_id).result(LONG) for each in queued]
            verdicts = [result.verdict for result in results]
            assert verdicts == ["worker_lost"] * verdicts.count("worker_lost") + ["ok"] * verdicts.count("ok")
            assert done.read_text() == "x" * verdicts.count("ok")
            assert verdicts[-1] == "ok"


async def test_a_node_that_was_taken_for_dead_lets_go_of_what_it_had(place: Path, url: str) -> None:
    mark = place / "mark"
    with node(place / "a", url) as first, node(place / "b", url) as second:
        async with first.client() as client, second.client() as other:
            session = await client.session(name="work")
            running = session.submit(WAITS.format(mark=str(mark), go=str(place / "never")))
            await begun(running, mark)
            os.kill(first.process.pid, signal.SIGSTOP)
            again = await attached("work", other)
            assert (await again.run("6 * 7")).text == "42"
            os.kill(first.process.pid, signal.SIGCONT)
            # Nothing is told by two: the verdict that stands is heard at the node that came too late, too.
            async with asyncio.timeout(LONG):
                result = await running.result()
            assert result.verdict == "worker_lost"
            assert (await other.execution(running.execution_id).result(LONG)).verdict == "worker_lost"
            with pytest.raises(SessionError) as caught:
                await session.run("1")
            assert caught.value.code in {"session_elsewhere", "session_unknown", "session_closed"}
            # It goes on as any node: with sessions of its own, and looking after the dead.
            fresh = await client.session(name="fresh")
            assert (await fresh.run("1 + 1")).text == "2"
            assert (await again.run("6 * 7")).text == "42"
            await again.detach()
            killed(second)
            assert (await (await attached("work", client)).run("6 * 7")).text == "42"


async def test_a_question_is_answered_from_another_node(place: Path, url: str) -> None:
    with node(place / "a", url) as first, node(place / "b", url) as second:
        async with first.client() as client, second.client() as other:
            session = await client.session()
            execution = session.start("input('Deploy? ')", {}, allow_input=True)
            request = await asked(execution)
            assert request.promise in [one.id for one in await other.promises()]
            assert (await other.settle_promise(request.promise, "resolve", "yes")).decided
            assert (await execution.result()).text == "'yes'"


async def test_a_password_is_not_taken_by_a_node_that_could_not_pass_it_on(place: Path, url: str) -> None:
    with node(place / "a", url) as first, node(place / "b", url) as second:
        async with first.client() as client, second.client() as other:
            session = await client.session()
            execution = session.start("import getpass\nlen(getpass.getpass())", {}, allow_input=True)
            request = await asked(execution)
            with pytest.raises(SessionError) as caught:
                await other.settle_promise(request.promise, "resolve", "s3cret")
            assert caught.value.code == "session_elsewhere"
            assert (await client.settle_promise(request.promise, "resolve", "s3cret")).decided
            assert (await execution.result()).text == "6"
            request = await asked(execution := session.start("import getpass\ngetpass.getpass()", {}, allow_input=True))
            assert (await other.settle_promise(request.promise, "reject", message="nobody knows")).decided
            error = (await execution.result()).error
            assert error is not None
            assert (error.name, error.message) == ("EOFError", "nobody knows")


async def _all(events: object) -> list[object]:
    return [event async for event in events]  # type: ignore[attr-defined]
