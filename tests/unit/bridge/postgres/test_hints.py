"""Who waits at another node is woken."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from capsule_bridge import Retention, Settlement
from capsule_bridge.postgres import PostgresStore, listener
from capsule_bridge.postgres.transaction import PAYLOAD_BYTES, payloads
from tests.unit.bridge.postgres.support import Ear, cut_off, opened
from tests.unit.bridge.support import new

pytestmark = pytest.mark.anyio


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
