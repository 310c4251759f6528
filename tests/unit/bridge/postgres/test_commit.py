"""Many operations share a commit; callers leave, the store is closed, connections are lost."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from capsule_bridge import Settlement
from capsule_bridge.postgres import PostgresStore, writer
from capsule_protocol.errors import ArgumentError, StoreError
from tests.unit.bridge.contract import refused
from tests.unit.bridge.postgres.support import PATIENCE, Ear, connections, cut_off, held_up, opened, waits_for_lock
from tests.unit.bridge.support import new, postgres

pytestmark = pytest.mark.anyio

TOO_LONG = "".join(map(str, range(10_000)))
"""For an index; and it cannot be packed into less."""


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
            with pytest.raises(StoreError) as caught:
                await store.create(new("one too many"), now=1)
            assert (caught.value.code, caught.value.details) == ("store_unavailable", {"outcome": "not_done"})
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
