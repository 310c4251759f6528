"""What is left of a service that was killed: all that it had acknowledged, and nothing is run twice."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from capsule import AsyncClient, ExecutionError, SessionError
from capsule.events import Event, Finished, Gap
from capsule.node.durable.records import fingerprint_of, pack_request
from capsule.node.execution import ExecuteRequest
from capsule_bridge import Bridge, NewPromise, SqliteStore, promise_id, session_promise
from capsule_protocol.errors import StoreError
from tests.acceptance.linger.shells import verdict
from tests.acceptance.serve.support import LONG, Served

if TYPE_CHECKING:
    from pathlib import Path

    from capsule import AsyncExecution

pytestmark = pytest.mark.anyio


def killed(served: Served) -> None:
    """End it as a crash would."""
    served.kill()
    served.process.wait(LONG)


async def begun(execution: AsyncExecution, mark: Path) -> None:
    """Wait until its code runs, which makes this file."""
    async with asyncio.timeout(LONG):
        while not mark.exists():
            await asyncio.sleep(0.005)
    assert not execution.done


async def test_what_had_been_started_is_lost_and_the_session_goes_on_in_its_next_epoch(place: Path) -> None:
    with Served(place / "node") as first:
        async with first.client() as client:
            session = await client.session(name="work")
            await session.run("state = 1")
            running = session.submit(f"open({str(place / 'mark')!r}, 'x'); import time; time.sleep(600)")
            await begun(running, place / "mark")
            killed(first)
            with Served(first.directory):
                async with asyncio.timeout(LONG):
                    result = await running.result()
                assert result.verdict == "worker_lost"
                assert result.error is not None
                extent = {"reason": "node_ended", "started": True, "last_seq": 1, "effects": "unknown"}
                assert result.error.details == extent
                with pytest.raises(ExecutionError) as failed:
                    result.raise_for_error()
                assert not failed.value.retryable
                assert (result.epoch, session.epoch) == (1, 2)
                assert (await session.run("'state' in globals()")).text == "False"
                with pytest.raises(SessionError) as caught:
                    await session.run("state", if_epoch=1)
                assert caught.value.code == "epoch_mismatch"
                assert (await session.run("6 * 7", if_epoch=2)).text == "42"


async def test_a_key_gets_the_same_answer_from_the_next_node(place: Path) -> None:
    count = place / "count"
    code = f"with open({str(count)!r}, 'a') as file: file.write('x')\nfor n in range(300): print(n)\n6 * 7"
    with Served(place / "node") as first:
        async with first.client() as client:
            session = await client.session(name="work")
            async with session.stream(code, key="k") as events:
                before = [event async for event in events]
            await session.detach()
        killed(first)
        with Served(first.directory) as second:
            async with second.client() as other:
                again = await other.attach("work")
                async with again.stream(code, key="k") as events:
                    after = [event async for event in events]
                with pytest.raises(SessionError, match="the idempotency key 'k' was used before with") as caught:
                    await again.run("something else", key="k")
                assert caught.value.code == "idempotency_conflict"
                assert caught.value.details["differs"] == ["code"]
                written = (await other.info()).bridge
                assert written is not None
                assert (written.dedup_hits, written.conflicts, written.pending) == (1, 1, 1)
                own = (await again.info()).promises
                assert own is not None
                assert (own.dedup_hits, own.conflicts, own.pending) == (1, 1, 0)
    assert after == before
    assert isinstance(after[-1], Finished)
    assert count.read_text() == "x"


async def test_what_was_accepted_and_not_dispatched_is_run_by_the_next_node(place: Path) -> None:
    mark, done = place / "mark", place / "done"
    with Served(place / "node") as first:
        async with first.client() as client:
            session = await client.session()
            running = session.submit(f"open({str(mark)!r}, 'x'); import time; time.sleep(600)")
            code = f"with open({str(done)!r}, 'a') as file: file.write('{{}} ')"
            queued = [session.submit(code.format(n), key=f"k{n}") for n in range(20)]
            await begun(running, mark)
            async with asyncio.timeout(LONG):
                while (await session.info()).queue + 8 < len(queued) + 1:
                    await asyncio.sleep(0.005)
            killed(first)
            with Served(first.directory):
                async with asyncio.timeout(LONG):
                    results = await asyncio.gather(running.result(), *(each.result() for each in queued))
    lost = [n for n, result in enumerate(results[1:]) if result.verdict == "worker_lost"]
    assert results[0].verdict == "worker_lost"
    assert lost == list(range(7))  # the worker had them already
    assert all(result.verdict == "ok" for result in results[8:])
    assert done.read_text().split() == [str(n) for n in range(7, 20)]


@pytest.mark.parametrize("stop_on_error", [True, False])
async def test_what_was_behind_a_cell_that_stops_its_batch_was_not_started_and_nobody_says_so(
    place: Path, stop_on_error: bool
) -> None:
    mark, done = place / "mark", place / "done"
    with Served(place / "node") as first:
        async with first.client() as client:
            session = await client.session()
            cell = f"open({str(mark)!r}, 'x'); import time; time.sleep(600)"
            running = session.submit(cell, batch="b", stop_on_error=True)
            code = f"with open({str(done)!r}, 'a') as file: file.write('x')"
            behind = [session.submit(code, batch="b", stop_on_error=stop_on_error) for _ in range(3)]
            others = [session.submit(code, batch="c", stop_on_error=stop_on_error) for _ in range(2)]
            await begun(running, mark)
            async with asyncio.timeout(LONG):
                while (await session.info()).queue < len(behind + others):
                    await asyncio.sleep(0.005)
            killed(first)
            with Served(first.directory):
                async with asyncio.timeout(LONG):
                    results = await asyncio.gather(running.result(), *(each.result() for each in behind + others))
    assert results[0].error is not None
    assert results[0].error.details["started"] is True
    # As if the cell had failed under a living node, where it does not matter what those behind it say for themselves.
    assert [result.error and result.error.code for result in results[1:4]] == ["execution_cancelled"] * 3
    assert [result.verdict for result in results[4:]] == ["ok"] * 2
    assert done.read_text() == "xx"


async def test_a_service_that_ended_in_peace_leaves_its_sessions_to_the_next_one(place: Path) -> None:
    with Served(place / "node") as first:
        async with first.client() as client:
            session = await client.session(name="work")
            assert (await session.run("6 * 7", key="k")).text == "42"
            await session.detach()
            await (await client.session(name="closed")).close()
            assert first.stop() == 0
        with Served(first.directory) as second:
            async with second.client() as client:
                assert [row.name for row in await client.sessions()] == ["work"]
                again = await client.attach("work")
                assert again.epoch == 2
                assert (await again.run("6 * 7", key="k")).text == "42"


async def test_what_a_service_ends_with_itself_has_its_verdict_at_the_next_one(place: Path) -> None:
    with Served(place / "node", "[serve]\ndrain_timeout = 0.2\n") as first:
        async with first.client() as client:
            session = await client.session(name="work")
            stubborn = "while True:\n try: time.sleep(600)\n except KeyboardInterrupt: pass"
            code = f"import time\nprint('runs', flush=True)\n{stubborn}"
            running = session.stream(code)
            while getattr(await anext(running), "text", "") != "runs\n":
                pass
            assert first.stop() == 0
        with Served(first.directory) as second:
            async with second.client() as client:
                assert (await client.execution(running.execution_id).result(LONG)).verdict == "killed"


async def test_of_a_long_log_the_end_is_kept_and_the_rest_is_told_to_be_missing(place: Path) -> None:
    code = "for n in range(40_000): print('x' * 1000)"
    with Served(place / "node") as served:
        async with served.client() as client:
            session = await client.session()
            assert (await session.run(code, key="k")).verdict == "ok"
            async with session.stream(code, key="k") as events:
                told = [event async for event in events]
    assert isinstance(told[0], Gap)
    assert told[0].sequence == told[0].missing
    assert [event.sequence for event in told] == list(range(told[0].sequence, told[0].sequence + len(told)))
    assert 4 * 2**20 < sum(len(getattr(event, "text", "")) for event in told) < 20 * 2**20


async def test_a_result_is_kept_for_its_time_and_then_known_to_be_gone(place: Path) -> None:
    with Served(place / "node", "[store]\nresults = 0.5\n") as served:
        async with served.client() as client:
            session = await client.session()
            assert (await session.run("1", key="k")).text == "1"

            async def asked_again() -> None:
                while True:
                    assert (await session.run("1", key="k")).text == "1"

            with pytest.raises(SessionError) as caught:
                await asyncio.wait_for(asked_again(), LONG)
            assert caught.value.code == "promise_expired"


async def test_a_store_that_is_gone_stops_the_intake_until_it_is_back(place: Path) -> None:
    with Served(place / "node") as served:
        async with served.client() as client:
            session = await client.session()
            store, aside = served.directory / "store.db", place / "aside"
            mark, go = place / "mark", place / "go"
            code = f"import os\nopen({str(mark)!r}, 'x')\nwhile not os.path.exists({str(go)!r}): pass\n'done'"
            running = session.submit(code)
            await begun(running, mark)
            store.rename(aside)
            go.touch()
            with pytest.raises(StoreError) as caught:
                await session.run("1")
            assert (caught.value.code, caught.value.retryable) == ("store_unavailable", True)  # it was not even tried
            await asyncio.wait([asyncio.ensure_future(running.result())], timeout=0.3)
            assert not running.done  # nothing is told that is not written down
            aside.rename(store)
            async with asyncio.timeout(LONG):
                assert (await running.result()).text == "'done'"
                assert (await session.run("1")).text == "1"


async def test_two_services_never_share_a_store(place: Path) -> None:
    store = f'[store]\npath = "{place / "one.db"}"\n'
    with Served(place / "a", store) as first, Served(place / "b", store) as second:
        assert second.process.wait(LONG) == 3
        said = f"process {first.process.pid} uses the store {place / 'one.db'} (store_locked)"
        assert said in second.log.read_text()
        async with AsyncClient(first.address) as client, client.session() as session:
            assert (await session.run("1")).text == "1"


@pytest.mark.parametrize("linger", [0, 60])
async def test_a_batch_that_a_restart_interrupts_is_stopped_by_its_error_all_the_same(place: Path, linger: int) -> None:
    mark, go = place / "mark", place / "go"
    first_cell = f"import os\nopen({str(mark)!r}, 'x')\nwhile not os.path.exists({str(go)!r}): pass\n1 / 0"
    with Served(place / "node", linger=linger) as first:
        async with first.client() as client:
            session = await client.session(name="work")
            running = asyncio.ensure_future(session.run_all([first_cell, *["'ran'"] * 14]))
            async with asyncio.timeout(LONG):
                while not mark.exists() or (await session.info()).queue < 14:
                    await asyncio.sleep(0.005)
            killed(first)
            go.touch()
            with Served(first.directory, linger=linger) as second:
                async with asyncio.timeout(LONG):
                    results = await running
                assert second.stop() == 0
    verdicts = [result.verdict for result in results]
    assert verdicts[0] == ("error" if linger else "worker_lost")
    assert set(verdicts[1:]) <= {"interrupted", "worker_lost"}
    assert verdicts[-1] == "interrupted"
    assert results[-1].error is not None
    assert results[-1].error.code == "execution_cancelled"


@pytest.mark.parametrize("lost", [False, True], ids=["error", "lost"])
async def test_what_comes_behind_the_end_of_its_batch_does_not_run_in_the_next_epoch(place: Path, lost: bool) -> None:
    """A piece that the dead node had accepted, and not lined up yet, and one that reaches the next node."""
    mark = place / "mark"
    code = f"open({str(mark)!r}, 'x'); import time; time.sleep(600)" if lost else "1 / 0"
    with Served(place / "node") as first:
        async with first.client() as client:
            session = await client.session(name="work")
            inner = session._inner
            fails, told = inner.submit(ExecuteRequest(code, stop_on_error=True, batch="b")), list[Event]()
            if lost:
                async with asyncio.timeout(LONG):
                    while not mark.exists():
                        await asyncio.sleep(0.005)
            else:
                assert (await verdict(fails, told)).verdict == "error"
            killed(first)
            late = ExecuteRequest("1", stop_on_error=True, batch="b", follows=fails.id)
            await accept(first.directory / "store.db", session.id, "x_late", late)
            with Served(first.directory) as second:
                async with asyncio.timeout(LONG):
                    assert (await verdict(fails, told)).verdict == ("worker_lost" if lost else "error")
                    for name in "x_late", "x_later":
                        ended = await verdict(inner.submit(late, name))
                        assert ended.error is not None
                        assert ended.error.code == "execution_cancelled"
                        late = replace(late, follows=name)
                    assert session.epoch == 2
                    assert (await session.run("1")).text == "1"
                assert second.stop() == 0


async def accept(store: Path, session: str, execution: str, request: ExecuteRequest) -> None:
    """What a node writes down first of what it is asked for, and did not come further."""
    bridge = Bridge(SqliteStore(store, "process"))
    owner = (await bridge.get(session_promise(session))).principal
    id_, param = promise_id(execution), pack_request(request)
    await bridge.accept(NewPromise(id_, "execute", session, fingerprint_of(request), param, owner, execution))
    await bridge.close()


async def test_a_key_is_answered_also_when_the_session_would_take_nothing_new(place: Path) -> None:
    with Served(place / "node") as served:
        async with served.client() as client:
            session = await client.session()
            assert (await session.run("6 * 7", key="k", if_epoch=1)).text == "42"
            await session.restart()
            assert (await session.run("6 * 7", key="k", if_epoch=1)).text == "42"
            with pytest.raises(SessionError) as caught:
                await session.run("6 * 7", key="other", if_epoch=1)
            assert caught.value.code == "epoch_mismatch"


async def test_no_epoch_is_had_by_two_workers(place: Path) -> None:
    with Served(place / "node") as served:
        async with served.client() as client:
            session = await client.session()
            await session.run("state = 1")
            store, aside = served.directory / "store.db", place / "aside"
            store.rename(aside)
            with pytest.raises(StoreError):
                await session.restart()
            aside.rename(store)
            assert (await session.run("state", if_epoch=1)).text == "1"


async def test_how_it_is_asked_for_makes_no_other_request_of_the_same_code(place: Path) -> None:
    code = f"with open({str(place / 'count')!r}, 'a') as file: file.write('x')\n6 * 7"
    with Served(place / "node") as first:
        async with first.client() as client:
            session = await client.session(name="work")
            assert (await session.run(code, key="k", if_epoch=session.epoch, timeout=60)).text == "42"
            asked = [{"if_epoch": 1, "timeout": 60}, {"if_epoch": 2}, {}, {"quiet": True}, {"on_input": str}]
            for later in (False, True):
                if later:
                    await session.restart()
                for options in asked:
                    if later or options != {"if_epoch": 2}:
                        assert (await session.run(code, key="k", **options)).text == "42"  # type: ignore[arg-type]
            with pytest.raises(SessionError) as caught:
                await session.run(code, key="k", user_expressions={"a": "1"})
            assert caught.value.code == "idempotency_conflict"
            assert caught.value.details["differs"] == ["user_expressions"]
            with pytest.raises(SessionError) as caught:
                await (await client.session()).run(code, key="k", if_epoch=9)
            assert caught.value.code == "epoch_mismatch"
            written = (await session.info()).promises
            assert written is not None
            assert (written.accepted, written.conflicts) == (1, 1)
    assert (place / "count").read_text() == "x"


async def test_repeats_and_conflicts_are_counted_also_where_the_store_need_not_be_asked(place: Path) -> None:
    mark, go = place / "mark", place / "go"
    code = f"import os\nopen({str(mark)!r}, 'x')\nwhile not os.path.exists({str(go)!r}): pass\n6 * 7"
    with Served(place / "node") as served:
        async with served.client() as first, served.client() as client, asyncio.timeout(LONG):
            before = await first.session(name="work", max_queue=1)
            await before.run("1", key="done")
            running = before.submit(code, key="runs")
            await begun(running, mark)
            session = await client.attach("work")
            waiting = [session.submit("1") for _ in range(8)]  # one more than is sent ahead
            while not (await session.info()).queue:
                await asyncio.sleep(0.005)
            with pytest.raises(SessionError, match="queue_full"):
                await session.run("1")
            for key in "runs", "done":
                with pytest.raises(SessionError, match="idempotency_conflict"):
                    await session.run("another", key=key)
            assert (await session.run("1", key="done")).text == "1"
            again = session.submit(code, key="runs")
            await session.info()
            go.touch()
            assert [(await each.result()).text for each in (again, *waiting)] == ["42", *["1"] * 8]
            for counted in ((await session.info()).promises, (await client.info()).bridge):
                assert counted is not None
                assert (counted.dedup_hits, counted.conflicts) == (2, 2)


async def test_a_conflict_with_what_runs_is_told_at_once_and_a_repeat_waits_for_it(place: Path) -> None:
    mark, go = place / "mark", place / "go"
    code = f"import os\nopen({str(mark)!r}, 'x')\nwhile not os.path.exists({str(go)!r}): pass\n6 * 7"
    with Served(place / "node") as served:
        async with served.client() as client, asyncio.timeout(LONG):
            session = await client.session()
            running = session.submit(code, key="k")
            await begun(running, mark)
            with pytest.raises(SessionError, match="the idempotency key 'k' was used before") as caught:
                await session.run("another", key="k")
            assert (caught.value.code, caught.value.details) == ("idempotency_conflict", {"differs": ["code"]})
            again = session.submit(code, key="k")
            assert not running.done
            go.touch()
            assert [(await each.result()).text for each in (running, again)] == ["42", "42"]


async def test_the_time_of_code_does_not_begin_anew_though_the_verdict_before_it_was_not_written_down(
    place: Path,
) -> None:
    """The next node takes it for what is behind the one that runs."""
    limit, before = 10.0, 4.0
    go, mark = place / "go", place / "mark"
    os.mkfifo(go)
    code = f"import time\nopen({str(mark)!r}, 'x').write(str(time.monotonic()))\ntime.sleep(100)"
    with Served(place / "node", linger=LONG) as first:
        async with first.client() as client:
            session = await client.session()
            ends = session.submit(f"open({str(go)!r}).read()")
            runs = session.submit(code, timeout=limit)
            await runs.accepted(LONG)
            with closing(sqlite3.connect(store_path(first), isolation_level=None)) as store:
                store.execute("BEGIN IMMEDIATE")  # nothing more is written down
                await asyncio.to_thread(go.write_text, "")
                await begun(runs, mark)
                await asyncio.sleep(before)
                killed(first)
            with Served(first.directory, linger=LONG) as second:
                ready, since = time.monotonic(), float(mark.read_text())
                assert (await ends.result()).ok
                assert (await runs.result()).verdict == "timeout"
                assert time.monotonic() - since < max(limit, ready - since) + before - 1.0
                assert second.stop() == 0


def store_path(served: Served) -> str:
    """The file of its store."""
    return str(served.directory / "store.db")
