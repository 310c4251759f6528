"""Values that are too large for a row, in files of their own: they go with their rows, and are what was written."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from capsule_bridge import Bridge, LoggedEvent, Retention, Settlement, rules
from capsule_protocol.errors import StoreError
from tests.unit.bridge.contract import refused
from tests.unit.bridge.support import LARGE, Gate, file_sizes_up_to, files_of, new, opened

pytestmark = pytest.mark.anyio


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "node" / "store.db"


def spoil_values(path: Path, harm: str) -> None:
    for name in files_of(path):
        file = path.with_name(f"{path.name}.values") / name
        file.unlink() if harm == "lost" else file.write_bytes(LARGE[:-1] + b"x")


# Their files


async def test_files_of_large_values_go_with_their_rows(path: Path) -> None:
    async with opened(path) as store:
        await store.create(new("a", param=LARGE), now=1)
        await store.append("a", [LARGE, LARGE], after=0)
        await store.settle(Settlement("a", "resolve", LARGE), now=2)
        assert len(files_of(path)) == 4
        await store.trim("a", 1)
        assert len(files_of(path)) == 3
        await store.expire(now=1000, retention=Retention(results=1))
        assert files_of(path) == []


async def test_a_file_outlives_a_commit_that_fails(path: Path) -> None:
    async with opened(path) as store:
        await store.create(new("a"), now=1)
        await store.append("a", [LARGE], after=0)
        with file_sizes_up_to(path.with_name("store.db-wal").stat().st_size), refused("store_unavailable"):
            await store.trim("a", 1)
        assert (await store.read("a", after=0)).events == (LoggedEvent(1, LARGE),)
        await store.trim("a", 1)
        assert files_of(path) == []


async def test_a_value_whose_file_is_gone_is_told_and_harms_nothing_else(path: Path) -> None:
    gate = Gate("before_commit")
    async with opened(path) as store:
        await store.create(new("a", param=LARGE), now=1)
    (file,) = files_of(path)
    path.with_name("store.db.values").joinpath(file).unlink()
    async with opened(path, fault=gate) as store:
        with refused("store_damaged"):
            await store.get("a", now=2)
        calls = [asyncio.ensure_future(store.create(new("b"), now=1))]
        await gate.reached()
        calls += [asyncio.ensure_future(store.create(new(name), now=2)) for name in ("c", "a", "d")]
        await asyncio.sleep(0)
        gate.open()
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert [isinstance(answer, StoreError) for answer in answers] == [False, False, True, False]
        assert (await store.get("d", now=3)).pending


async def test_files_that_no_row_names_are_removed_at_the_next_start(path: Path) -> None:
    async with opened(path) as store:
        await store.create(new("a", param=LARGE), now=1)
        (kept,) = files_of(path)
    for name in ("0" * 32, "1.tmp"):
        path.with_name("store.db.values").joinpath(name).write_bytes(b"left by a crash")
    async with opened(path):
        assert files_of(path) == [kept]


# Damage


@pytest.mark.parametrize("harm", [b"", LARGE[:-1], LARGE + b"x", LARGE[:-1] + b"x"])
async def test_a_large_value_that_is_not_what_was_written_is_told_and_never_handed_out(path: Path, harm: bytes) -> None:
    async with opened(path) as store:
        await store.create(new("a", param=LARGE), now=1)
        (name,) = files_of(path)
        path.with_name("store.db.values").joinpath(name).write_bytes(harm)
        await store.create(new("b", key="k", param=LARGE), now=1)
        for call in (store.get("a", now=2), store.pending(now=2), store.start("a", epoch=1, now=2)):
            with refused("store_damaged"):
                await call
        # Others do not suffer for it, and it is forgotten in its time.
        assert not (await store.create(new("c", key="k", param=LARGE), now=2)).fresh
        assert (await store.get("b", now=3)).param == LARGE
        assert store.failure is None
    async with opened(path) as store:
        with refused("store_damaged"):
            await store.get("a", now=3)


@pytest.mark.parametrize("harm", ["lost", "damaged"])
async def test_how_far_a_log_goes_is_known_also_if_its_events_cannot_be_read(path: Path, harm: str) -> None:
    """Or nobody could go on with an execution, or rule on it, whose output was damaged."""
    async with opened(path) as store:
        await store.create(new("a"), now=1)
        await store.append("a", [LARGE, b"two"], after=0)
        spoil_values(path, harm)
        with refused("store_damaged"):
            await store.read("a", after=0, limit=1)
        assert (await store.read("a", after=0, limit=0)).last == 2


@pytest.mark.parametrize("harm", ["lost", "damaged"])
async def test_what_is_old_is_forgotten_also_if_its_large_value_cannot_be_read(path: Path, harm: str) -> None:
    async with opened(path) as store:
        await store.create(new("a"), now=1)
        await store.settle(Settlement("a", "resolve", LARGE), now=1)
        file = path.with_name("store.db.values") / files_of(path)[0]
        file.unlink() if harm == "lost" else file.write_bytes(b"less")
        assert (await store.expire(now=10, retention=Retention(results=5))).forgotten == ("a",)
        assert files_of(path) == []


@pytest.mark.parametrize("harm", ["lost", "damaged"])
async def test_a_request_that_cannot_be_read_keeps_nobody_from_ending_its_promise(path: Path, harm: str) -> None:
    async with opened(path) as store:
        for request in (new("a"), new("b"), new("c", parent="b"), new("d", timeout_at=5)):
            await store.create(request._replace(param=LARGE), now=1)
        spoil_values(path, harm)
        with refused("store_damaged"):
            await store.start("a", epoch=1, now=2)
        assert store.failure is None, "that tells of one value, and not of the store"
        ((promise, decided),) = await store.settle(Settlement("a", "resolve", LARGE, log=(b"one",)), now=2)
        assert (decided, promise.state, promise.param, promise.value) == (True, "resolved", b"", LARGE)
        ((again, decided),) = await store.settle(Settlement("a", "reject"), now=3)
        assert (decided, again) == (False, promise)
        both = await store.settle(Settlement("b", "cancel"), Settlement("c", "cancel"), now=4)
        assert [each.decided for each in both] == [True, False]
        assert (await store.expire(now=6, retention=Retention())).timed_out == ("d",)
        assert await store.pending(now=7) == []
        assert store.failure is None
    async with opened(path) as store:
        assert await store.get("a", now=8) == promise, "a verdict is told without the request, also later"
        assert not (await store.create(new("a", param=LARGE), now=8)).fresh
        with refused("store_damaged"):
            rules.request_of(await store.get("a", now=8))


async def test_a_verdict_that_cannot_be_read_is_not_told_as_another(path: Path) -> None:
    async with opened(path) as store:
        await store.create(new("a"), now=1)
        await store.settle(Settlement("a", "resolve", LARGE), now=1)
        spoil_values(path, "damaged")
        with refused("store_damaged"):
            await store.settle(Settlement("a", "reject"), now=2)
        assert store.failure is None


async def test_large_values_of_before_whose_names_say_nothing_are_read(path: Path) -> None:
    async with opened(path) as store:
        await store.create(new("a", param=LARGE), now=1)
    (name,) = files_of(path)
    before = name.partition(".")[0]
    path.with_name("store.db.values").joinpath(name).rename(path.with_name("store.db.values") / before)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE promises SET param_file = ?", (before,))
    async with opened(path) as store:
        assert (await store.get("a", now=2)).param == LARGE
    assert files_of(path) == [before]


@pytest.mark.parametrize("harm", ["lost", "damaged"])
async def test_what_can_be_read_is_listed_page_by_page_whatever_else_is_damaged(path: Path, harm: str) -> None:
    async with opened(path) as store:
        for name in ("a", "b", "c", "d"):
            await store.create(new(name, param=LARGE if name == "b" else b""), now=1)
        spoil_values(path, harm)
        bridge = Bridge(store, clock=lambda: 2)
        assert [each.id for each in await bridge.readable()] == ["a", "c", "d"]
        await bridge.settle(Settlement("a", "cancel"))  # between two pages
        assert [each.id for each in await bridge.readable("a")] == ["c", "d"]
        assert [each.id for each in await bridge.readable("c")] == ["d"]
        with refused("store_damaged"):
            [each async for each in bridge.pending()]
