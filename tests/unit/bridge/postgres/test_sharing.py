"""Two nodes that share a store: what each may do, and who owns what."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from capsule_bridge import Lease, Retention, Settlement
from capsule_bridge.postgres import PostgresStore
from capsule_protocol.errors import CapsuleError
from tests.unit.bridge.contract import refused
from tests.unit.bridge.postgres.support import held_up, waits_for_lock
from tests.unit.bridge.support import new

pytestmark = pytest.mark.anyio


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
