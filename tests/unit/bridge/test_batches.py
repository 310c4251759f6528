"""Transactions of many operations: what goes into one, in which order, and whom the errors of one of them reach."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from capsule_bridge import Retention, Settlement, SqliteStore
from capsule_bridge.sqlite import writer
from capsule_bridge.sqlite.connect import open_writer
from capsule_bridge.sqlite.deferred import SIZES
from capsule_bridge.sqlite.doorbell import Doorbell
from capsule_bridge.sqlite.faults import no_fault
from capsule_bridge.sqlite.files import Blobs
from capsule_bridge.sqlite.rows import Rows
from capsule_protocol.errors import SessionError
from tests.unit.bridge.contract import refused
from tests.unit.bridge.support import LARGE, PATIENCE, Gate, new, opened

pytestmark = pytest.mark.anyio


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "node" / "store.db"


# Group commit


async def test_no_answer_comes_before_its_commit(path: Path) -> None:
    gate = Gate("before_commit")
    async with opened(path, fault=gate) as store:
        call = asyncio.ensure_future(store.create(new("a"), now=1))
        await gate.reached()
        with refused("promise_unknown"):
            await store.get("a", now=2)  # nor does a reader see it
        assert not call.done()
        gate.open()
        assert (await call).fresh


async def test_what_waits_during_a_commit_shares_the_next_one(path: Path) -> None:
    gate = Gate("before_commit")
    async with opened(path, fault=gate) as store:
        first = asyncio.ensure_future(store.create(new("first"), now=1))
        await gate.reached()
        others = [asyncio.ensure_future(store.create(new(f"a{n}"), now=1)) for n in range(100)]
        await asyncio.sleep(0)
        gate.open()
        await asyncio.gather(first, *others)
        assert gate.passed["begun"] == 2


async def test_a_value_that_no_row_can_hold_harms_nobody_else(path: Path) -> None:
    gate = Gate("taken")
    async with opened(path, fault=gate) as store:
        first = asyncio.ensure_future(store.create(new("first"), now=1))
        await gate.reached()
        others = [store.create(new(name), now=1) for name in ("a", "\ud800", "b")]
        others += [store.create(new("c", timeout_at=2**70), now=1)]
        calls = [asyncio.ensure_future(each) for each in others]
        await asyncio.sleep(0)
        gate.open()
        answers = await asyncio.gather(first, *calls, return_exceptions=True)
        failed = [isinstance(answer, UnicodeError | OverflowError) for answer in answers]
        assert failed == [False, False, True, False, True]
        assert [promise.id for promise in await store.pending(now=2)] == ["first", "a", "b"]


async def test_more_may_not_wait_than_the_bound(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "MAX_QUEUED", 5)
    gate = Gate("taken")
    async with opened(path, fault=gate) as store:
        calls = [asyncio.ensure_future(store.create(new("first"), now=1))]
        await gate.reached()
        calls += [asyncio.ensure_future(store.create(new(f"a{n}"), now=1)) for n in range(5)]
        await asyncio.sleep(0)
        with refused("store_unavailable"):
            await store.create(new("one too many"), now=1)
        gate.open()
        assert all(fresh for _, fresh in await asyncio.gather(*calls))


# What answers nothing is written together


async def together(store: SqliteStore, gate: Gate, calls: Iterable[Coroutine[Any, Any, Any]]) -> list[Any]:
    """The answers of operations that share one transaction, in their order."""
    await gate.reached()
    waiting = [asyncio.ensure_future(call) for call in calls]
    await asyncio.sleep(0)
    gate.open()
    return await asyncio.gather(*waiting, return_exceptions=True)


@asynccontextmanager
async def held(path: Path) -> AsyncIterator[tuple[SqliteStore, Gate]]:
    """A store with the promise `first`, whose writer is about to make `held`, and waits until all is asked for."""
    async with opened(path) as store:
        await store.create(new("first", key="k"), now=1)
    gate = Gate("taken")
    async with opened(path, fault=gate) as store:
        holding = asyncio.ensure_future(store.create(new("held"), now=1))
        yield store, gate
        await holding


@pytest.mark.parametrize("count", sorted({1, 2, *SIZES, *(size + 1 for size in SIZES), 200}))
async def test_any_number_of_operations_fits_into_one_transaction(path: Path, count: int) -> None:
    names = [f"a{n}" for n in range(count)]
    async with held(path) as (store, gate):
        answers = await together(store, gate, (store.create(new(name, log=(name.encode(),)), now=1) for name in names))
        assert [(answer.promise.id, answer.fresh) for answer in answers] == [(name, True) for name in names]
        settlements = [Settlement(name, "resolve", name.encode() * 2, log=(b"end",), after=1) for name in names]
        await store.settle(*settlements, now=2)
    async with opened(path) as store:
        for name in names:
            promise, log = await store.get(name, now=3), await store.read(name, after=0)
            assert (promise.value, promise.settled_at) == (name.encode() * 2, 2)
            assert [event.data for event in log.events] == [name.encode(), b"end"]


async def test_one_that_is_there_already_is_found_among_many_new_ones(path: Path) -> None:
    async with held(path) as (store, gate):
        calls = [store.create(new(name, **more), now=2) for name, more in REQUESTS]
        answers = await together(store, gate, calls)
        assert [answer.code if isinstance(answer, SessionError) else answer.fresh for answer in answers] == [
            *(True, False, False, True, "idempotency_conflict", True, False),
        ]
        assert gate.passed["committed"] == 2  # of `held`, and of all others
        assert [promise.id for promise in await store.pending(now=3)] == ["first", "held", "a", "b", "large"]


REQUESTS: list[tuple[str, dict[str, Any]]] = [
    ("a", {}),
    ("first", {"key": "k"}),
    ("other", {"key": "k"}),
    ("b", {}),
    ("c", {"key": "k", "fingerprint": b"another"}),
    ("large", {"param": LARGE}),
    ("a", {}),
]


async def test_one_that_is_kept_no_longer_is_refused_among_many_new_ones(path: Path) -> None:
    async with opened(path) as store:
        await store.create(new("old", key="old"), now=1)
        await store.settle(Settlement("old", "resolve"), now=2)
        assert (await store.expire(now=100, retention=Retention(results=1, tombstones=1000))).forgotten == ("old",)
    async with held(path) as (store, gate):
        calls = [store.create(new(name, key=key), now=101) for name, key in (("a", None), ("b", "old"), ("old", None))]
        fine, *refusals = await together(store, gate, calls)
        assert fine.fresh
        assert [refusal.code for refusal in refusals] == ["promise_expired", "promise_expired"]


async def test_the_last_word_of_a_transaction_counts(path: Path) -> None:
    async with held(path) as (store, gate):
        await together(
            store,
            gate,
            [
                store.start("held", epoch=3, now=2),
                store.append("held", [b"1", b"2"], after=0),
                store.settle(Settlement("held", "reject", b"no"), now=4),
                store.settle(Settlement("held", "resolve", b"yes"), now=5),
            ],
        )
        promise = await store.get("held", now=6)
        assert (promise.epoch, promise.state, promise.value, promise.settled_at) == (3, "rejected", b"no", 4)
        with refused("promise_settled"):
            await store.append("held", [b"3"], after=2)


async def test_numbers_go_on_behind_a_transaction_that_was_undone(path: Path) -> None:
    async with held(path) as (store, gate):
        await together(store, gate, [store.create(new(name), now=1) for name in ("a", "\ud800", "b")])
        await store.create(new("c"), now=1)
        page = await store.pending(now=2, limit=2)
        rest = await store.pending(now=2, after=page[-1].id)
        assert [promise.id for promise in (*page, *rest)] == ["first", "held", "a", "b", "c"]


# What is urgent


async def test_a_cancellation_has_the_next_transaction_to_itself(path: Path) -> None:
    done: list[str] = []

    async def noted(name: str, call: Coroutine[Any, Any, Any]) -> None:
        await call
        done.append(name)

    async with held(path) as (store, gate):
        calls = [noted(f"a{n}", store.create(new(f"a{n}"), now=1)) for n in range(20)]
        await together(store, gate, [*calls, noted("cancel", store.settle(Settlement("first", "cancel"), now=2))])
        assert done[0] == "cancel"
        assert len(done) == 21
        assert gate.passed["committed"] == 3  # of what held the writer, the cancellation, and the rest


def test_what_is_urgent_lets_others_have_their_turn(path: Path) -> None:
    """Each urgent operation asks for another one; the ordinary one is run behind the first of them all the same."""
    order: list[str] = []
    path.parent.mkdir()
    blobs = Blobs(path.parent, no_fault)
    loop = asyncio.new_event_loop()
    bell = Doorbell(loop)
    held, begin, over = threading.Event(), threading.Event(), threading.Event()
    tested = writer.Writer(lambda: Rows(open_writer(path, "process"), blobs), lambda: None, blobs, no_fault)

    def submit(name: str) -> None:
        def run(_: Rows) -> None:
            order.append(name)
            if name == "hold":
                held.set()
                assert begin.wait(PATIENCE)
            elif len(order) >= 10:
                over.set()
            elif name == "urgent":
                submit("urgent")

        tested.submit(writer.Job(run, 0, bell, loop.create_future(), name == "urgent"))

    submit("hold")
    assert held.wait(PATIENCE)
    submit("urgent")
    submit("ordinary")
    begin.set()
    assert over.wait(PATIENCE)
    tested.stop()
    bell.close()
    loop.close()
    assert order[:3] == ["hold", "urgent", "ordinary"]
    assert len(order) == 10


async def test_a_store_that_is_closed_has_done_what_was_urgent_too(path: Path) -> None:
    async with opened(path) as store:
        for name in ("a", "b"):
            await store.create(new(name), now=1)
    gate = Gate("taken")
    store = SqliteStore(path, "process", fault=gate)
    calls: list[asyncio.Future[Any]] = [asyncio.ensure_future(store.settle(Settlement("a", "cancel"), now=2))]
    await gate.reached()  # so that it is the others' turn now
    calls += [asyncio.ensure_future(store.create(new(f"c{n}"), now=2)) for n in range(3)]
    cancellation = asyncio.ensure_future(store.settle(Settlement("b", "cancel"), now=3))
    await asyncio.sleep(0)
    closing = asyncio.ensure_future(store.close())
    await asyncio.sleep(0)
    gate.open()
    await asyncio.gather(*calls, closing)
    ((promise, decided),) = await cancellation
    assert (promise.state, decided) == ("rejected_canceled", True)
