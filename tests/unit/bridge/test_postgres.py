"""What only a store in a database can do: be shared by nodes, lose its server, and come back."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from capsule_bridge import Lease, Leases, Retention, Settlement, Watched, open_store
from capsule_bridge.places import POSTGRES
from capsule_bridge.postgres import PostgresStore, listener, schema, writer
from capsule_bridge.postgres.transaction import PAYLOAD_BYTES, payloads
from capsule_bridge.sql import Migration
from capsule_protocol.errors import ArgumentError, CapsuleError, StoreError
from tests.unit.bridge.contract import refused
from tests.unit.bridge.support import LARGE, new, postgres, schema_of

pytestmark = pytest.mark.anyio

PATIENCE = 30.0
TOO_LONG = "".join(map(str, range(10_000)))
"""For an index; and it cannot be packed into less."""
IN_PLACE = {"server", "tables", "schema_exists", "schema_version", "create_marker", "mark_version"}
IN_PLACE |= {"delete_leases", "lapsed_leases"}
"""Queries that look at the catalog, or at tables that stay small."""


@pytest.fixture
def place(tmp_path: Path) -> str:
    """The schema of this test's store."""
    return schema_of(tmp_path)


@pytest.fixture
async def pair(place: str) -> AsyncIterator[tuple[PostgresStore, PostgresStore]]:
    """The same store, opened by two nodes."""
    async with opened(place) as one, opened(place) as other:
        yield one, other


@pytest.fixture
async def database(place: str) -> AsyncIterator[Any]:
    """Somebody who looks into the database past the store."""
    connection = await asyncpg.connect(postgres().url(), server_settings={"search_path": place})
    yield connection
    await connection.close()


@asynccontextmanager
async def opened(place: str, url: str = "") -> AsyncIterator[PostgresStore]:
    store = PostgresStore(url or postgres().url(), schema=place)
    try:
        yield store
    finally:
        await store.close()


class Ear:
    """A subscriber; hints are kept until somebody asks for them."""

    def __init__(self, store: PostgresStore, *waiting: str) -> None:
        self.waiting = set(waiting)
        self.hints: asyncio.Queue[Collection[str]] = asyncio.Queue()
        self.end = store.subscribe(self.hints.put_nowait, lambda: self.waiting)

    async def hears(self, wanted: Callable[[Collection[str]], bool] | str) -> Collection[str]:
        """The first hint that is wanted."""
        good = (lambda ids: wanted in ids) if isinstance(wanted, str) else wanted
        while True:
            ids = await asyncio.wait_for(self.hints.get(), PATIENCE)
            if good(ids):
                return ids

    async def listens(self) -> None:
        """Until the connection is there: then it is told to look at all."""
        await self.hears(lambda ids: set(ids) == self.waiting)
        while not self.hints.empty():
            self.hints.get_nowait()


# Opening


async def test_a_url_opens_a_database(place: str) -> None:
    store = open_store("power", postgres().url())
    try:
        assert isinstance(store, PostgresStore)
        assert isinstance(store, Watched)
        assert isinstance(store, Leases)
    finally:
        await store.close()
    assert postgres().url().startswith(POSTGRES)
    with pytest.raises(ArgumentError, match="allowed: power"):
        open_store("process", postgres().url())


def test_without_the_driver_it_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("capsule_bridge.postgres")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    with pytest.raises(StoreError, match=r"capsule-exec\[postgres\]") as caught:
        open_store("power", "postgresql:///none")
    assert caught.value.code == "store_refused"


def test_a_database_that_does_not_answer_is_unavailable(tmp_path: Path) -> None:
    with refused("store_unavailable"):
        PostgresStore(f"postgresql:///x?host={tmp_path}")
    with refused("store_unavailable"):
        PostgresStore("postgresql://localhost:none/x")


def test_a_database_that_is_not_there_is_refused() -> None:
    with pytest.raises(StoreError, match='"nothing" does not exist') as caught:
        PostgresStore(postgres().url("nothing"))
    assert caught.value.code == "store_refused"


@pytest.mark.parametrize("name", ["", "Upper", "a b", "x" * 41, 'a"; DROP'])
def test_a_schema_has_a_plain_name(name: str) -> None:
    with pytest.raises(ArgumentError, match="schema"):
        PostgresStore(postgres().url(), schema=name)


async def test_who_may_not_make_tables_is_refused(place: str, database: Any) -> None:
    await database.execute(f"CREATE ROLE {place} LOGIN")
    try:
        with pytest.raises(StoreError, match="permission denied") as caught:
            PostgresStore(postgres().url().replace("capsule@", f"{place}@"), schema=place)
        assert caught.value.code == "store_refused"
    finally:
        await database.execute(f"DROP ROLE {place}")


async def test_all_is_there_after_opening_again(place: str) -> None:
    async with opened(place) as store:
        await store.create(new("a", key="k", param=LARGE), now=1)
        await store.start("a", epoch=3, now=2)
        await store.append("a", [b"one", LARGE], after=0)
        await store.trim("a", 1)
        before, log = await store.get("a", now=3), await store.read("a", after=0)
    async with opened(place) as store:
        assert await store.get("a", now=4) == before
        assert await store.read("a", after=0) == log
        assert (await store.create(new("b", key="k"), now=5)) == (before, False)


# Versions


async def test_a_newer_schema_is_refused_with_a_hint(place: str, database: Any) -> None:
    async with opened(place):
        pass
    await database.execute("INSERT INTO capsule_schema VALUES (99)")
    with pytest.raises(StoreError, match="has schema 99") as caught:
        PostgresStore(postgres().url(), schema=place)
    assert (caught.value.code, caught.value.hint[:14]) == ("store_refused", "Update Capsule")


async def test_a_node_acknowledges_nothing_after_a_newer_one_has_changed_the_tables(place: str, database: Any) -> None:
    async with opened(place) as store:
        await store.create(new("a"), now=1)
        await database.execute("INSERT INTO capsule_schema VALUES (99)")
        await cut_off(database, store)
        with refused("store_unavailable"):
            await store.create(new("b"), now=2)


async def test_tables_of_another_program_are_refused_and_left_alone(place: str, database: Any) -> None:
    await database.execute(f"CREATE SCHEMA {place}; CREATE TABLE promises (mine int)")
    with pytest.raises(StoreError, match="not Capsule's") as caught:
        PostgresStore(postgres().url(), schema=place)
    assert caught.value.code == "store_refused"
    tables = await database.fetch(schema.queries()["tables"], place)
    assert [name for (name,) in tables] == ["promises"]


async def test_nodes_that_start_at_once_make_the_tables_once(place: str, database: Any) -> None:
    stores = await asyncio.gather(*(asyncio.to_thread(PostgresStore, postgres().url(), schema=place) for _ in range(5)))
    versions = [version for (version,) in await database.fetch("SELECT version FROM capsule_schema ORDER BY 1")]
    for store in stores:
        await store.close()
    assert versions == [step.version for step in schema.migrations()]


async def test_a_migration_that_fails_leaves_the_version_before(
    place: str, database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = schema.migrations()
    bad = Migration(len(good) + 1, "CREATE TABLE more (x int); CREATE TABLE promises (x int)")
    monkeypatch.setattr(schema, "migrations", lambda: (*good, bad))
    with refused("store_unavailable"):
        PostgresStore(postgres().url(), schema=place)
    monkeypatch.undo()
    assert await database.fetchval(schema.queries()["schema_version"]) == len(good)
    assert "more" not in {name for (name,) in await database.fetch(schema.queries()["tables"], place)}


# Shared by two nodes


async def test_what_one_node_makes_the_other_sees(pair: tuple[PostgresStore, PostgresStore]) -> None:
    one, other = pair
    promise, _ = await one.create(new("a", key="k"), now=1)
    await one.append("a", [b"x"], after=0)
    assert await other.get("a", now=2) == promise
    assert await other.create(new("b", key="k"), now=2) == (promise, False)
    assert (await other.read("a", after=0)).last == 1
    assert [each.id for each in await other.pending(now=2)] == ["a"]
    ((settled, decided),) = await other.settle(Settlement("a", "resolve", b"v"), now=3)
    assert decided
    assert await one.settle(Settlement("a", "reject"), now=4) == [(settled, False)]


async def test_of_two_nodes_asked_the_same_at_once_one_makes_each_promise(
    pair: tuple[PostgresStore, PostgresStore],
) -> None:
    # In opposite order, so that each has what the other one waits for.
    names = [f"a{n}" for n in range(200)]
    calls = [
        one.create(new(name, key=name), now=1)
        for one, order in zip(pair, (1, -1), strict=True)
        for name in names[::order]
    ]
    answers = await asyncio.gather(*calls)
    assert sorted(promise.id for promise, fresh in answers if fresh) == sorted(names)


async def test_nodes_that_wait_for_each_other_are_parted_and_both_get_their_answers(
    pair: tuple[PostgresStore, PostgresStore], database: Any
) -> None:
    # Rows are written in the order of their ids, so with these keys each node comes to have what the other one wants.
    # In the middle both are held up, by somebody who is about to make a promise with that key.
    count, middle = 10, "5"
    asked = [
        (store, new(f"{number:03}{name}", key=f"{number if name == 'a' else count - number}"))
        for name, store in zip("ab", pair, strict=True)
        for number in range(count + 1)
    ]
    await database.execute("BEGIN")
    await database.execute(
        "INSERT INTO promises (n, id, kind, session, fingerprint, param, principal, key, created_at, state, value,"
        " epoch, version, has_children) VALUES (-1, 'x', '', 's', '', '', '', $1, 1, 'pending', '', 0, 0, false)",
        middle,
    )
    calls = [asyncio.ensure_future(store.create(each, now=1)) for store, each in asked]
    await waits_for_lock(database, 2, "locktype = 'transactionid'")
    await database.execute("ROLLBACK")
    answers = await asyncio.gather(*calls)
    keys = {promise.key: promise for promise, fresh in answers if fresh}
    assert len(keys) == sum(fresh for _, fresh in answers) == count + 1
    assert all(keys[promise.key] == promise for promise, _ in answers)


async def test_of_two_nodes_that_settle_at_once_one_decides(
    pair: tuple[PostgresStore, PostgresStore], database: Any
) -> None:
    names = [f"a{n}" for n in range(100)]
    await asyncio.gather(*(pair[0].create(new(name), now=1) for name in names))
    async with held_up(database):
        verdicts = [(store, Settlement(name, "resolve", b"%d" % n)) for name in names for n, store in enumerate(pair)]
        calls = [asyncio.ensure_future(store.settle(each, now=2)) for store, each in verdicts]
        await waits_for_lock(database, 2)
    answers = [answer for (answer,) in await asyncio.gather(*calls)]
    assert [promise.id for promise, decided in answers if decided] == names
    assert {promise for promise, _ in answers} == {await pair[1].get(name, now=3) for name in names}


async def test_a_node_that_took_over_fences_the_other(pair: tuple[PostgresStore, PostgresStore]) -> None:
    old, young = pair
    await old.create(new("a"), now=1)
    fence = (await old.start("a", epoch=1, now=2)).promise.fence
    taken = await young.start("a", epoch=2, now=3)
    assert not taken.first
    for call in (
        old.settle(Settlement("a", "resolve", b"late", fence), now=4),
        old.append("a", [b"late"], after=0, fence=fence),
        old.start("a", epoch=1, now=4),
    ):
        with refused("promise_fenced"):
            await call
    assert await young.append("a", [b"mine"], after=0, fence=taken.promise.fence) == 1


async def test_a_child_made_while_its_parent_is_settled_elsewhere_is_canceled_or_refused(
    pair: tuple[PostgresStore, PostgresStore], database: Any
) -> None:
    one, other = pair
    names = [f"a{n}" for n in range(60)]
    await asyncio.gather(*(one.create(new(name), now=1) for name in names))
    async with held_up(database):
        made = [asyncio.ensure_future(one.create(new(f"{name}.1", parent=name), now=2)) for name in names]
        settled = [asyncio.ensure_future(other.settle(Settlement(name, "resolve"), now=2)) for name in names]
        await waits_for_lock(database, 2)
    await asyncio.wait([*made, *settled])
    for name, child in zip(names, made, strict=True):
        error = child.exception()
        if error is None:
            assert (await one.get(f"{name}.1", now=3)).state == "rejected_canceled"
        else:
            assert isinstance(error, CapsuleError)
            assert error.code == "promise_settled"


async def test_both_may_sweep_and_each_promise_is_forgotten_once(pair: tuple[PostgresStore, PostgresStore]) -> None:
    names = [f"a{n}" for n in range(40)]
    await asyncio.gather(*(pair[0].create(new(name, timeout_at=10), now=1) for name in names))
    retention = Retention(results=5, tombstones=100)
    swept = await asyncio.gather(*(store.expire(now=50, retention=retention) for store in pair * 5))
    again = await pair[0].expire(now=50, retention=retention)
    for what in ("timed_out", "forgotten"):
        told = [id_ for each in (*swept, again) for id_ in getattr(each, what)]
        assert sorted(told) == sorted(names), what


# Hints


async def test_a_verdict_wakes_who_waits_at_another_node(pair: tuple[PostgresStore, PostgresStore]) -> None:
    one, other = pair
    await one.create(new("a"), now=1)
    ear = Ear(other, "a")
    await ear.listens()
    await one.settle(Settlement("a", "resolve", b"v"), now=2)
    await ear.hears("a")
    assert (await other.get("a", now=3)).value == b"v"


async def test_hints_come_for_logs_children_and_time_outs_too(pair: tuple[PostgresStore, PostgresStore]) -> None:
    one, _ = pair
    ears = [Ear(store, "a", "a.1", "b") for store in pair]
    for ear in ears:
        await ear.listens()
    await one.create(new("a"), now=1)
    await one.create(new("a.1", parent="a"), now=1)
    await one.create(new("b", timeout_at=10), now=1)
    for act, told in (
        (lambda: one.append("a", [b"x"], after=0), {"a"}),
        (lambda: one.settle(Settlement("a", "resolve"), now=2), {"a", "a.1"}),
        (lambda: one.expire(now=10, retention=Retention()), {"b"}),
    ):
        await act()
        for ear in ears:
            # The first hint that comes: making promises was none, and repeating what is known is none either.
            assert set(await ear.hears(lambda _: True)) == told
    await one.append("a", [b"x"], after=0)
    await one.settle(Settlement("a", "resolve"), now=3)
    await one.create(new("c"), now=3)
    await one.settle(Settlement("c", "resolve"), now=3)
    for ear in ears:
        assert set(await ear.hears(lambda _: True)) == {"c"}


async def test_hints_of_a_large_transaction_all_come(pair: tuple[PostgresStore, PostgresStore]) -> None:
    names = [f"{n}-{'x' * 500}" for n in range(100)]
    await asyncio.gather(*(pair[0].create(new(name), now=1) for name in names))
    ear = Ear(pair[1])
    await ear.listens()
    await pair[0].settle(*(Settlement(name, "resolve") for name in names), now=2)
    left = set(names)
    while left:
        left -= set(await ear.hears(lambda _: True))


def test_notifications_keep_to_their_size_and_an_id_too_long_for_one_makes_all_look() -> None:
    ids = [f"{n}é" * 100 for n in range(100)]
    parts = payloads([*ids, "x" * PAYLOAD_BYTES, "last"])
    assert max(len(part.encode()) for part in parts) <= PAYLOAD_BYTES
    assert parts.count("[]") == 1
    assert payloads([]) == []


async def test_who_subscribed_no_longer_hears_nothing(pair: tuple[PostgresStore, PostgresStore]) -> None:
    one, other = pair
    ear, stays = Ear(other, "a"), Ear(other, "a")
    for each in (ear, stays):
        await each.listens()
    ear.end()
    await one.create(new("a"), now=1)
    await one.settle(Settlement("a", "resolve"), now=2)
    await stays.hears("a")
    assert ear.hints.empty()


async def test_a_hint_that_got_lost_comes_late(place: str, database: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "SCAN_SECONDS", 0.05)
    async with opened(place) as store:
        await store.create(new("a"), now=1)
        await store.create(new("b"), now=1)
        ear = Ear(store, "a", "b")
        await ear.listens()
        await database.execute(
            "UPDATE promises SET state = 'resolved', settled_at = 2 WHERE id = 'a'"
        )  # and tells nobody
        assert set(await ear.hears("a")) == {"a"}


async def test_after_a_lost_connection_who_waits_is_told_to_look(place: str, database: Any) -> None:
    async with opened(place) as store:
        await store.create(new("a"), now=1)
        ear = Ear(store, "a")
        await ear.listens()
        await cut_off(database, store)
        await ear.listens()


# Leases


async def test_one_owner_at_a_time_has_a_lease(pair: tuple[PostgresStore, PostgresStore]) -> None:
    one, other = pair
    first = await one.acquire("node", "one", seconds=60)
    assert first == Lease("node", "one", first.version if first else 0)
    assert await other.acquire("node", "other", seconds=60) is None
    assert await one.renew(first, seconds=60)
    await one.release(first)
    second = await other.acquire("node", "other", seconds=60)
    assert second is not None
    assert second.version > first.version
    assert not await one.renew(first, seconds=60)
    await one.release(first)  # of a lease that is somebody else's: changes nothing
    assert await other.renew(second, seconds=60)


async def test_a_lease_that_was_not_renewed_in_time_can_be_taken(
    pair: tuple[PostgresStore, PostgresStore], database: Any
) -> None:
    one, other = pair
    first = await one.acquire("node", "one", seconds=0)
    second = await other.acquire("node", "other", seconds=60)
    assert first is not None
    assert second is not None
    assert second.version > first.version
    assert not await one.renew(first, seconds=60)


async def test_what_was_not_renewed_in_time_is_told_until_somebody_takes_it(
    pair: tuple[PostgresStore, PostgresStore],
) -> None:
    one, other = pair
    for name, seconds in (("node:a", 0), ("node:b", 60), ("other:c", 0), ("node:d", 0)):
        assert await one.acquire(name, "one", seconds=seconds)
    assert await other.lapsed("node:") == ["node:a", "node:d"]
    taken = await other.acquire("node:a", "other", seconds=60)
    assert taken is not None
    assert await other.lapsed("node:") == ["node:d"]
    await other.release(taken)
    assert await other.lapsed("node:") == ["node:d"]


async def test_an_owner_that_comes_back_takes_its_lease_at_once_and_fences_its_former_self(
    pair: tuple[PostgresStore, PostgresStore],
) -> None:
    one, again = pair
    first, second = await one.acquire("node", "one", seconds=60), await again.acquire("node", "one", seconds=60)
    assert first is not None
    assert second is not None
    assert second.version > first.version
    assert not await one.renew(first, seconds=60)


async def test_of_many_that_want_a_lease_one_has_it(pair: tuple[PostgresStore, PostgresStore]) -> None:
    calls = [store.acquire("node", f"{n}", seconds=60) for n in range(20) for store in pair]
    got = [lease for lease in await asyncio.gather(*calls) if lease]
    # Both stores ask as each owner, and an owner may have it twice.
    assert len({lease.owner for lease in got}) == 1
    assert len({lease.version for lease in got}) == len(got)


# Group commit


async def test_no_answer_comes_before_its_commit(place: str, database: Any) -> None:
    async with opened(place) as store:
        async with held_up(database):
            call = asyncio.ensure_future(store.create(new("a"), now=1))
            await waits_for_lock(database)
            with refused("promise_unknown"):
                await store.get("a", now=2)  # nor does a reader see it
            assert not call.done()
        assert (await call).fresh


async def test_what_waits_during_a_commit_shares_the_next_one(place: str, database: Any) -> None:
    async with opened(place) as store:
        async with held_up(database):
            first = asyncio.ensure_future(store.create(new("first"), now=1))
            await waits_for_lock(database)
            others = [asyncio.ensure_future(store.create(new(f"a{n}"), now=1)) for n in range(100)]
            await asyncio.sleep(0)
        await asyncio.gather(first, *others)
        assert await database.fetchval("SELECT count(DISTINCT xmin::text) FROM promises") == 2


@pytest.mark.parametrize("bad", [{"id": "\ud800"}, {"id": "a\0b"}, {"timeout_at": 2**70}, {"id": TOO_LONG}])
async def test_a_value_that_no_row_can_hold_harms_nobody_else(place: str, database: Any, bad: dict[str, Any]) -> None:
    async with opened(place) as store:
        async with held_up(database):
            calls = [asyncio.ensure_future(store.create(new("first"), now=1))]
            await waits_for_lock(database)
            asked = [new("a"), new(**{"id": "c", "key": "k", **bad}), new("b")]
            calls += [asyncio.ensure_future(store.create(each, now=1)) for each in asked]
            await asyncio.sleep(0)
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert [isinstance(answer, ArgumentError) for answer in answers] == [False, False, True, False]
        assert [promise.id for promise in await store.pending(now=2)] == ["first", "a", "b"]
        assert store.failure is None


async def test_an_id_that_no_row_can_have_is_told_to_readers(place: str) -> None:
    async with opened(place) as store:
        for id_ in ("\ud800", "a\0b"):
            with pytest.raises(ArgumentError):
                await store.get(id_, now=1)


async def test_more_may_not_wait_than_the_bound(place: str, database: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "MAX_QUEUED", 5)
    async with opened(place) as store:
        async with held_up(database):
            calls = [asyncio.ensure_future(store.create(new("first"), now=1))]
            await waits_for_lock(database)
            calls += [asyncio.ensure_future(store.create(new(f"a{n}"), now=1)) for n in range(5)]
            await asyncio.sleep(0)
            with refused("store_unavailable"):
                await store.create(new("one too many"), now=1)
        assert all(fresh for _, fresh in await asyncio.gather(*calls))


# Cancellation and closing


async def test_a_call_that_is_canceled_while_it_is_committed_is_done_once(place: str, database: Any) -> None:
    async with opened(place) as store:
        async with held_up(database):
            call = asyncio.ensure_future(store.create(new("a", key="k"), now=1))
            await waits_for_lock(database)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
        assert not (await store.create(new("b", key="k"), now=2)).fresh


async def test_closing_finishes_what_was_asked_even_if_it_is_canceled(place: str, database: Any) -> None:
    store = PostgresStore(postgres().url(), schema=place)
    async with held_up(database):
        calls = [asyncio.ensure_future(store.create(new(f"a{n}"), now=1)) for n in range(20)]
        await waits_for_lock(database)
        closing = asyncio.ensure_future(store.close())
        await asyncio.sleep(0)
        closing.cancel()
        await asyncio.gather(closing, return_exceptions=True)
    assert all(fresh for _, fresh in await asyncio.gather(*calls))
    await store.close()
    async with opened(place) as again:
        assert len(await again.pending(now=2)) == 20


async def test_several_loops_may_use_and_close_it(place: str) -> None:
    store = PostgresStore(postgres().url(), schema=place)

    async def elsewhere() -> None:
        await store.create(new("a"), now=1)
        await store.close()

    await asyncio.gather(store.create(new("b"), now=1), asyncio.to_thread(asyncio.run, elsewhere()))
    await store.close()
    async with opened(place) as again:
        assert {promise.id for promise in await again.pending(now=2)} == {"a", "b"}


async def test_a_loop_that_ends_while_it_waits_does_no_harm(place: str, database: Any) -> None:
    async with opened(place) as store:

        async def give_up() -> None:
            store.subscribe(lambda _: None, lambda: ["a"])
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(store.create(new("a"), now=1), 0.01)

        async with held_up(database):
            await asyncio.to_thread(asyncio.run, give_up())
        assert not (await store.create(new("a"), now=2)).fresh
        assert (await store.settle(Settlement("a", "resolve"), now=2))[0].decided


async def test_closing_leaves_no_connection(place: str, database: Any) -> None:
    async with opened(place) as store:
        Ear(store)
        await asyncio.gather(*(store.get("a", now=1) for _ in range(20)), return_exceptions=True)
        assert await connections(database, place)
    async with asyncio.timeout(PATIENCE):
        while await connections(database, place):  # its processes end a moment after we have hung up
            pass


# Failures


async def test_a_connection_lost_in_the_middle_is_told_and_another_one_taken(place: str, database: Any) -> None:
    async with opened(place) as store:
        await store.create(new("before"), now=1)
        async with held_up(database):
            calls = [asyncio.ensure_future(store.create(new(f"a{n}"), now=1)) for n in range(3)]
            await waits_for_lock(database)
            await cut_off(database, store)
            answers = await asyncio.gather(*calls, return_exceptions=True)
        told = [answer for answer in answers if isinstance(answer, StoreError)]
        assert told
        assert {(error.code, error.retryable, error.details["outcome"]) for error in told} == {
            ("store_unavailable", True, "not_done")
        }
        for n in range(3):
            assert (await store.create(new(f"a{n}"), now=2)).fresh == isinstance(answers[n], StoreError)
        assert store.failure is None
        assert not (await store.create(new("before"), now=2)).fresh


async def test_connections_lost_between_calls_are_not_even_noticed(place: str, database: Any) -> None:
    async with opened(place) as store:
        await store.create(new("a"), now=1)
        await store.get("a", now=1)
        await cut_off(database, store)
        assert (await store.get("a", now=1)).pending
        assert (await store.create(new("b"), now=1)).fresh


# SQL


@pytest.mark.parametrize("name", sorted(set(schema.queries()) - IN_PLACE))
async def test_no_query_looks_at_all_rows(place: str, database: Any, name: str) -> None:
    """Tables that are small now will not always be: everything has to find its rows by an index."""
    async with opened(place):
        pass
    asked = await database.prepare(schema.queries()[name])
    nothing = ", ".join("NULL" for _ in asked.get_parameters())
    await database.execute("SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off")
    await database.execute(f"PREPARE asked AS {schema.queries()[name]}")
    plan = [line for (line,) in await database.fetch(f"EXPLAIN EXECUTE asked{nothing and f'({nothing})'}")]
    assert [line for line in plan if "Seq Scan" in line] == []


# Helpers


async def connections(database: Any, place: str) -> list[int]:
    """The database's processes that serve the stores of this place."""
    query = "SELECT pid FROM pg_stat_activity WHERE application_name = $1 ORDER BY pid"
    return [pid for (pid,) in await database.fetch(query, f"capsule:{place}")]


async def cut_off(database: Any, store: PostgresStore) -> None:
    """End all connections of the store, from the other side, and return when it knows."""
    lost = await connections(database, store._database.schema)
    assert lost
    await database.fetch("SELECT pg_terminate_backend(pid, 10000) FROM unnest($1::int[]) AS pid", lost)


@asynccontextmanager
async def held_up(database: Any) -> AsyncIterator[None]:
    """Meanwhile no transaction of a store gets to write promises, though all can read them."""
    async with database.transaction():
        await database.execute("LOCK TABLE promises IN EXCLUSIVE MODE")
        yield


async def waits_for_lock(database: Any, number: int = 1, what: str = "relation = 'promises'::regclass") -> None:
    """Return when so many wait for it; unless told otherwise for what `held_up` holds."""
    async with asyncio.timeout(PATIENCE):
        while await database.fetchval(f"SELECT count(*) FROM pg_locks WHERE NOT granted AND {what}") < number:
            pass
