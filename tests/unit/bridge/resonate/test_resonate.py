"""What only a store with a judge elsewhere can do: hear others, and do without it for a while."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from capsule_bridge import Fence, PromiseStore, Retention, Settlement
from capsule_bridge.resonate import ResonateStore, client, watch
from capsule_bridge.resonate.locks import Locks
from capsule_bridge.resonate.wire import FOREVER
from capsule_bridge.sqlite.faults import FaultPoint
from capsule_protocol.errors import StoreError
from tests.unit.bridge.contract import refused
from tests.unit.bridge.resonate.support import PATIENCE, Line, Server, line_to
from tests.unit.bridge.support import LARGE, new
from tests.unit.bridge.test_sqlite import Failing

pytestmark = pytest.mark.anyio


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
async def line(server: Server) -> AsyncIterator[Line]:
    async with line_to(server) as line:
        yield line


@asynccontextmanager
async def opened(url: str, path: Path, **options: Any) -> AsyncIterator[ResonateStore]:
    store = ResonateStore(url, path, "process", **options)
    try:
        yield store
    finally:
        await store.close()


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


async def log_of(store: PromiseStore, id: str) -> list[bytes]:
    return [event.data for event in (await store.read(id, after=0)).events]


# What the server is told


async def test_a_promise_is_at_the_server_for_all_who_may_ask(server: Server, path: Path) -> None:
    async with opened(server.url, path) as store:
        await store.create(new("a", param=b"code", timeout_at=50, principal="p", key="secret"), now=1)
        await store.create(new("b"), now=1)
        found = server.call("promise.get", id="a")
        assert (found["state"], found["timeoutAt"], found["param"]["data"]) == ("pending", 50, text(b"code"))
        assert found["tags"]["resonate:external"] == "true"
        assert (found["tags"]["capsule:kind"], found["tags"]["capsule:session"]) == ("execute", "s")
        assert "secret" not in json.dumps(found)
        assert server.call("promise.get", id="b")["timeoutAt"] == FOREVER
        await store.settle(Settlement("a", "reject", b"no"), now=2)
        found = server.call("promise.get", id="a")
        assert (found["state"], found["value"]["data"]) == ("rejected", text(b"no"))


async def test_the_server_is_told_who_asks(line: Line, path: Path) -> None:
    async with opened(line.url, path, token="word") as store:
        await store.create(new("a"), now=1)
    assert all(b"Authorization: Bearer word\r\n" in head for head in line.heads)
    assert {asked["head"]["version"] for asked in line.asked} == {"2026-04-01"}


async def test_logs_stay_here(line: Line, path: Path) -> None:
    async with opened(line.url, path) as store:
        await store.create(new("a", log=(b"1",)), now=1)
        before = len(line.asked)
        await store.append("a", [b"2", LARGE], after=1)
        assert await log_of(store, "a") == [b"1", b"2", LARGE]
        await store.trim("a", 2)
        assert len(line.asked) == before


async def test_of_equal_requests_only_one_stays_at_the_server(server: Server, path: Path) -> None:
    async with opened(server.url, path) as store:
        answers = await asyncio.gather(*(store.create(new(f"a{n}", key="k"), now=1) for n in range(10)))
        (made,) = {promise.id for promise, _ in answers}
        states = {name: server.call("promise.get", id=name)["state"] for name in (f"a{n}" for n in range(10))}
        assert {name for name, state in states.items() if state == "pending"} == {made}


async def test_children_are_canceled_at_the_server_too(server: Server, path: Path) -> None:
    async with opened(server.url, path) as store:
        for name, parent in (("a", None), ("a.1", "a"), ("a.1.1", "a.1"), ("a.2", "a")):
            await store.create(new(name, parent=parent), now=1)
        server.call("promise.settle", id="a.2", state="resolved", value={"data": text(b"in time")})
        await store.settle(Settlement("a", "resolve"), now=2)
        assert server.call("promise.get", id="a.1.1")["state"] == "rejected_canceled"
        # A child that had its verdict keeps it.
        assert (await store.get("a.2", now=3)).value == b"in time"
        assert (await store.get("a.1.1", now=3)).state == "rejected_canceled"


async def test_a_child_that_is_made_while_its_parent_ends_is_canceled_too(
    server: Server, line: Line, path: Path
) -> None:
    async with opened(line.url, path) as store:
        await store.create(new("a"), now=1)
        await store.create(new("a.1", parent="a"), now=1)
        line.manners = ["pass", "wait"]  # the verdict is given, and the child is about to be canceled
        settling = asyncio.ensure_future(store.settle(Settlement("a", "resolve"), now=2))
        await line.waits.wait()
        assert (await store.create(new("a.2", parent="a"), now=2)).promise.pending
        line.open.set()
        await settling
        for name in ("a.1", "a.2"):
            assert (await store.get(name, now=3)).state == "rejected_canceled"
            assert server.call("promise.get", id=name)["state"] == "rejected_canceled"


# What others decide


@pytest.mark.parametrize(
    ("data", "value"),
    [(text(b"theirs"), b"theirs"), ("no base64!", b"no base64!"), (None, b""), ({"a": 1}, b'{"a": 1}')],
)
async def test_a_verdict_of_somebody_else_stands(server: Server, path: Path, data: Any, value: bytes) -> None:
    if server.kind == "node" and not isinstance(data, str):
        pytest.skip("this server takes text only")
    async with opened(server.url, path) as store:
        await store.create(new("a", log=(b"1",)), now=1)
        server.call("promise.settle", id="a", state="rejected", value={"headers": {"capsule:log": "?"}, "data": data})
        settled = await store.settle(Settlement("a", "resolve", b"ours", log=(b"2",), after=1), now=2)
        ((promise, decided),) = settled
        assert (promise.state, promise.value, decided) == ("rejected", value, False)
        assert await store.get("a", now=3) == promise
        assert await log_of(store, "a") == [b"1"]


async def test_a_verdict_of_somebody_else_is_heard_by_whoever_asks(server: Server, path: Path) -> None:
    async with opened(server.url, path) as store:
        for name in ("a", "b", "c", "c.1"):
            await store.create(new(name, key=name, parent="c" if name == "c.1" else None), now=1)
        for name in ("a", "b", "c"):
            server.call("promise.settle", id=name, state="resolved", value={"data": text(b"theirs")})
        assert (await store.get("a", now=2)).value == b"theirs"
        assert await store.start("b", epoch=1, now=2) == (await store.get("b", now=2), False)
        promise, fresh = await store.create(new("x", key="c"), now=2)
        assert (promise.state, fresh) == ("resolved", False)
        assert (await store.get("c.1", now=2)).state == "rejected_canceled"
        assert server.call("promise.get", id="c.1")["state"] == "rejected_canceled"


async def test_a_verdict_that_came_while_the_node_was_away_is_heard(server: Server, line: Line, path: Path) -> None:
    async with opened(server.url, path) as store:
        for name in ("a", "b"):
            await store.create(new(name), now=1)
    server.call("promise.settle", id="a", state="resolved", value={"data": text(b"theirs")})
    async with opened(line.url, path) as store:
        found = [await store.get(promise.id, now=2) for promise in await store.pending(now=2)]
        assert [promise.state for promise in found] == ["resolved", "pending"]
        assert [promise.id for promise in await store.pending(now=2)] == ["b"]
    assert {asked["kind"] for asked in line.asked} == {"promise.get"}  # nothing is searched for


async def test_whoever_waits_is_told_of_a_verdict_of_somebody_else(
    server: Server, line: Line, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "POLL_SECONDS", 0.01)
    heard = asyncio.Queue[set[str]]()
    async with opened(line.url, path) as store:
        for name, parent in (("a", None), ("a:input:1", "a"), ("b", None), ("unasked", None)):
            await store.create(new(name, parent=parent), now=1)
        end = store.subscribe(lambda ids: heard.put_nowait(set(ids)), lambda: ["a", "b", "of another store"])
        line.manners = ["cut before"] * 10  # the server is away for a while
        for name in ("unasked", "a:input:1"):
            server.call("promise.settle", id=name, state="resolved", value={"data": text(b"theirs")})
        assert await asyncio.wait_for(heard.get(), PATIENCE) == {"a:input:1"}
        assert [promise.id for promise in await store.pending(now=2)] == ["a", "b", "unasked"]
        await store.get("unasked", now=2)  # who asks for himself lets the others know
        assert await asyncio.wait_for(heard.get(), PATIENCE) == {"unasked"}
        end()
        end()
        server.call("promise.settle", id="b", state="resolved", value={})
        await store.get("b", now=2)
        assert heard.empty()


# The clock


async def test_a_server_whose_clock_is_behind_has_the_last_word(server: Server, path: Path) -> None:
    async with opened(server.url, path) as store:
        await store.create(new("a", timeout_at=100), now=1)
        assert (await store.get("a", now=150)).pending
        assert (await store.start("a", epoch=1, now=150)).promise.fence == Fence(1, 1)
        with refused("promise_fenced"):
            await store.settle(Settlement("a", "resolve", fence=Fence(0, 1)), now=150)
        assert (await store.expire(now=150, retention=Retention())).timed_out == ()
        server.clock(100)
        assert (await store.expire(now=150, retention=Retention())).timed_out == ("a",)
        assert (await store.get("a", now=150)).settled_at == 100


async def test_what_is_late_here_can_still_be_settled_there(server: Server, path: Path) -> None:
    async with opened(server.url, path) as store:
        await store.create(new("a", timeout_at=100), now=1)
        ((promise, decided),) = await store.settle(Settlement("a", "resolve", b"in time"), now=150)
        assert (promise.state, promise.value, decided) == ("resolved", b"in time", True)
        assert await store.get("a", now=200) == promise


async def test_a_server_whose_clock_is_ahead_has_the_last_word(server: Server, path: Path) -> None:
    async with opened(server.url, path) as store:
        await store.create(new("a", timeout_at=100), now=1)
        server.clock(100)
        ((promise, decided),) = await store.settle(Settlement("a", "resolve", b"late"), now=50)
        assert (promise.state, promise.value, decided) == ("rejected_timedout", b"", False)
        born, fresh = await store.create(new("b", timeout_at=90, epoch=1), now=50)
        assert (born.state, born.started_at, fresh) == ("rejected_timedout", None, True)
        assert await store.get("b", now=50) == born


# A server that is away


async def test_nothing_is_acknowledged_while_the_server_is_away(server: Server, path: Path) -> None:
    async with line_to(server) as line, opened(line.url, path) as store:
        await store.create(new("a"), now=1)
        line.manners = ["cut before"] * 100
        for call in (
            store.create(new("b", key="k", epoch=1), now=2),
            store.settle(Settlement("a", "resolve"), now=2),
            store.get("a", now=2),
            store.start("a", epoch=1, now=2),
        ):
            with refused("store_unavailable"):
                await call
        assert isinstance(store.failure, StoreError)
        assert store.failure.retryable
        assert await store.append("a", [b"1"], after=0) == 1  # its log is here
        line.manners = []
        # It was not made, so it is fresh when it is: whoever asked has to be told to run it.
        assert (await store.create(new("b2", key="k", epoch=1), now=3)).fresh
        assert (await store.settle(Settlement("a", "resolve"), now=3))[0].decided
        assert store.failure is None


async def test_a_server_that_does_not_listen_is_told_of(path: Path, server: Server) -> None:
    async with line_to(server) as line:
        url = line.url
    async with opened(url, path) as store:
        with pytest.raises(StoreError, match="cannot be reached") as caught:
            await store.create(new("a"), now=1)
        assert caught.value.code == "store_unavailable"
        assert url in caught.value.message


async def test_a_server_that_is_silent_is_given_up(line: Line, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "TIMEOUT", 0.1)
    async with opened(line.url, path) as store:
        line.manners = ["wait"]
        with refused("store_unavailable"):
            await store.create(new("a", key="k"), now=1)
        assert line.asked[1:] == []  # it is not asked again by itself: that would only take longer
        assert (await store.create(new("b", key="k"), now=2)).fresh


async def test_an_answer_that_is_lost_once_is_asked_for_again(line: Line, path: Path) -> None:
    async with opened(line.url, path) as store:
        line.manners = ["cut after"]
        assert (await store.create(new("a", log=(b"1",)), now=1)).fresh
        line.manners = ["cut after"]
        last = Settlement("a", "resolve", b"x", log=(b"2",), after=1)
        ((promise, decided),) = await store.settle(last, now=2)
        assert (promise.value, decided) == (b"x", True)  # the verdict that the server had was this call's
        assert await log_of(store, "a") == [b"1", b"2"]


async def test_a_verdict_whose_answer_is_lost_is_found_whole(line: Line, path: Path) -> None:
    async with opened(line.url, path) as store:
        await store.create(new("a", log=(b"1",)), now=1)
        line.manners = ["cut after"] * 2
        last = Settlement("a", "resolve", LARGE, log=(b"2", LARGE), after=1)
        with refused("store_unavailable"):
            await store.settle(last, now=2)
        assert await log_of(store, "a") == [b"1"]
        ((promise, decided),) = await store.settle(Settlement("a", "reject", b"second"), now=3)
        assert (promise.state, promise.value, decided) == ("resolved", LARGE, False)
        assert await log_of(store, "a") == [b"1", b"2", LARGE]


async def test_a_promise_whose_making_was_not_answered_is_made_once(server: Server, line: Line, path: Path) -> None:
    async with opened(line.url, path) as store:
        line.manners = ["cut after"] * 2
        with refused("store_unavailable"):
            await store.create(new("a", key="k"), now=1)
        assert server.call("promise.get", id="a")["state"] == "pending"
        assert (await store.create(new("a", key="k"), now=2)).fresh
        assert not (await store.create(new("a", key="k"), now=3)).fresh


async def test_of_several_verdicts_those_that_the_server_gave_stand(line: Line, path: Path) -> None:
    async with opened(line.url, path) as store:
        for name in ("a", "b", "c"):
            await store.create(new(name, log=(b"1",)), now=1)
        line.manners = ["pass", "cut before", "cut before", "cut before", "cut before"]
        settlements = [Settlement(name, "resolve", b"x", log=(b"2",), after=1) for name in ("a", "b", "c")]
        with refused("store_unavailable"):
            await store.settle(*settlements, now=2)
        line.manners = []
        states = [(await store.get(name, now=3)).state for name in ("a", "b", "c")]
        assert states.count("resolved") == 1
        assert [len(await log_of(store, name)) == 2 for name in ("a", "b", "c")] == [s == "resolved" for s in states]
        # Asked again, all have it.
        assert {each.promise.state for each in await store.settle(*settlements, now=4)} == {"resolved"}


# A server that forgets, or has something else


async def test_a_server_that_lost_all_is_given_it_again(server: Server, path: Path) -> None:
    async with opened(server.url, path) as store:
        for name in ("a", "b", "c"):
            await store.create(new(name, param=b"code", timeout_at=10**12), now=1)
        ((settled, _),) = await store.settle(Settlement("c", "resolve", b"x"), now=2)
        server.forget()
        assert (await store.get("a", now=3)).pending
        found = server.call("promise.get", id="a")
        assert (found["param"]["data"], found["timeoutAt"]) == (text(b"code"), 10**12)
        assert (await store.settle(Settlement("b", "resolve"), now=3))[0].decided
        assert server.call("promise.get", id="b")["state"] == "resolved"
        # What had its verdict keeps it, though the server knows nothing of it.
        assert await store.settle(Settlement("c", "cancel"), now=4) == [(settled, False)]


async def test_another_promise_of_the_same_id_is_nobody_elses(server: Server, path: Path) -> None:
    async with opened(server.url, path) as store:
        server.call("promise.create", id="a", timeoutAt=FOREVER, param={}, tags={"resonate:external": "true"})
        with refused("idempotency_conflict"):
            await store.create(new("a"), now=1)
        with refused("promise_unknown"):
            await store.get("a", now=2)
        assert server.call("promise.get", id="a")["state"] == "pending"
        await store.create(new("b"), now=1)
        server.forget()
        server.call("promise.create", id="b", timeoutAt=FOREVER, param={}, tags={"capsule:request": "other"})
        (before,) = await store.pending(now=2)
        assert before.id == "b"
        server.call("promise.settle", id="b", state="resolved", value={"data": text(b"of the other")})
        for call in (store.settle(Settlement("b", "cancel"), now=3), store.get("b", now=3)):
            with refused("store_refused"):
                await call
        assert await store.pending(now=2) == [before]


# A server that talks nonsense


def envelope(kind: str = "promise.get", status: int = 200, **promise: Any) -> dict[str, Any]:
    record = {"id": "a", "state": "pending", "tags": {}} | promise
    return {"kind": kind, "head": {"corrId": "?", "status": status}, "data": {"promise": record}}


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (b"", "store_unavailable"),
        (b"<html>Welcome</html>", "store_unavailable"),
        (b"[]", "store_unavailable"),
        (b"\xff\xfe", "store_unavailable"),
        ({"kind": "promise.get"}, "store_unavailable"),
        (envelope(kind="promise.settle"), "store_unavailable"),
        (envelope(id="b"), "store_unavailable"),
        (envelope(state="done"), "store_unavailable"),
        (envelope(state="resolved"), "store_unavailable"),
        (envelope(settledAt=5), "store_unavailable"),
        (envelope(state="resolved", settledAt="soon"), "store_unavailable"),
        (envelope(state="resolved", settledAt=5, value=7), "store_unavailable"),
        (envelope() | {"data": "what?"}, "store_unavailable"),
        (envelope() | {"data": None}, "store_unavailable"),
        (envelope(status=500), "store_unavailable"),
        (envelope(status=429), "store_unavailable"),
        (envelope(status=501), "store_unavailable"),
        (envelope(status=400), "store_refused"),
        (envelope(status=422), "store_refused"),
    ],
    ids=str,
)
async def test_nonsense_is_told_and_believed_by_nobody(line: Line, path: Path, answer: Any, code: str) -> None:
    async with opened(line.url, path) as store:
        await store.create(new("a"), now=1)
        line.echo = answer if isinstance(answer, dict) else None
        line.answer = answer if isinstance(answer, bytes) else None
        with refused(code):
            await store.get("a", now=2)
        with pytest.raises(StoreError):
            await store.create(new("b"), now=2)
        line.answer = line.echo = None
        assert (await store.get("a", now=3)).pending
        with refused("promise_unknown"):
            await store.get("b", now=3)


async def test_an_answer_to_another_question_is_refused(line: Line, path: Path) -> None:
    async with opened(line.url, path) as store:
        await store.create(new("a"), now=1)
        line.answer = json.dumps(envelope()).encode()  # right in all but the correlation
        with pytest.raises(StoreError, match="another question"):
            await store.get("a", now=2)


async def test_an_answer_without_end_is_cut_off(line: Line, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "MAX_ANSWER", 10_000)
    async with opened(line.url, path) as store:
        line.answer = b" " * 1_000_000
        with pytest.raises(StoreError, match="more than 10000 bytes"):
            await store.create(new("a"), now=1)


# Between the server's word and ours


@pytest.mark.parametrize("point", ["begun", "executed", "before_commit", "committed"])
async def test_a_verdict_that_could_not_be_written_down_is_found_again(
    server: Server, path: Path, point: FaultPoint
) -> None:
    fault = Failing()
    async with opened(server.url, path, fault=fault) as store:
        await store.create(new("a", log=(b"1",)), now=1)
        await store.create(new("a.1", parent="a"), now=1)
        fault.point = point
        with refused("store_unavailable"):
            await store.settle(Settlement("a", "resolve", b"x", log=(b"2",), after=1), now=2)
        fault.point = None
        promise = await store.get("a", now=3)
        assert (promise.state, promise.value) == ("resolved", b"x")
        assert await log_of(store, "a") == [b"1", b"2"]
        assert (await store.get("a.1", now=3)).state == "rejected_canceled"


async def test_a_promise_that_could_not_be_written_down_is_made_by_who_asks_again(server: Server, path: Path) -> None:
    fault = Failing()
    async with opened(server.url, path, fault=fault) as store:
        fault.point = "before_commit"
        with refused("store_unavailable"):
            await store.create(new("a", key="k"), now=1)
        fault.point = None
        assert (await store.create(new("a", key="k"), now=2)).fresh


async def test_nobody_takes_a_promise_over_while_its_verdict_is_under_way(line: Line, path: Path) -> None:
    async with opened(line.url, path) as store:
        await store.create(new("a"), now=1)
        fence = (await store.start("a", epoch=1, now=2)).promise.fence
        line.manners = ["wait"]
        settling = asyncio.ensure_future(store.settle(Settlement("a", "resolve", b"x", fence), now=3))
        await line.waits.wait()
        starting = asyncio.ensure_future(store.start("a", epoch=2, now=4))
        appending = asyncio.ensure_future(store.append("a", [b"late"], after=0))
        assert (await store.get("a", now=4)).pending  # who only looks does not wait
        assert not starting.done()
        line.open.set()
        assert (await settling)[0].decided
        assert (await starting).promise.fence == fence
        with refused("promise_settled"):
            await appending


async def test_whoever_looks_meanwhile_takes_nothing_from_the_verdict(line: Line, path: Path) -> None:
    async with opened(line.url, path) as store:
        await store.create(new("a"), now=1)
        calls = [store.settle(Settlement("a", "resolve", b"%d" % n, log=(b"%d" % n,)), now=2) for n in range(10)]
        looks = [store.get("a", now=2) for _ in range(40)]
        answers = await asyncio.gather(*looks[:20], *calls, *looks[20:])
        (winner,) = [each[0].promise.value for each in answers if isinstance(each, list) and each[0].decided]
        assert await log_of(store, "a") == [winner]


async def test_closing_finishes_what_was_asked_even_if_it_is_canceled(line: Line, path: Path) -> None:
    store = ResonateStore(line.url, path, "process")
    line.manners = ["wait"]
    call = asyncio.ensure_future(store.create(new("a"), now=1))
    await line.waits.wait()
    closing = asyncio.ensure_future(store.close())
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.gather(closing, return_exceptions=True)
    with refused("store_closed"):
        await store.get("a", now=1)
    line.open.set()
    assert (await call).fresh
    await store.close()
    async with opened(line.url, path) as again:
        assert (await again.get("a", now=2)).pending


async def test_locks_are_let_go_of_however_it_ends() -> None:
    locks = Locks()
    entered = asyncio.Event()

    async def hold(*ids: str) -> None:
        async with locks.hold(*ids):
            entered.set()
            await asyncio.Event().wait()

    holder = asyncio.ensure_future(hold("a", "b"))
    await entered.wait()
    waiter = asyncio.ensure_future(hold("b", "c"))
    await asyncio.sleep(0)
    waiter.cancel()
    holder.cancel()
    await asyncio.gather(holder, waiter, return_exceptions=True)
    async with locks.hold("c", "b", "a", "a"):
        pass
    assert locks._locks == {}
