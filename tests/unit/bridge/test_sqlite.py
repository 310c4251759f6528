"""What only a store in a file can do: outlive its process, keep others out, fail and come back."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from capsule_bridge import Fence, MemoryStore, Retention, Settlement, SqliteStore, open_store
from capsule_bridge.sql import Migration
from capsule_bridge.sqlite import damage, recent, schema, writer
from capsule_bridge.sqlite.connect import LOG_BYTES, Level, open_writer
from capsule_bridge.sqlite.faults import FaultPoint
from capsule_protocol.errors import ArgumentError, LocalProtocolError, SessionError, StoreError
from tests.unit.bridge.contract import refused
from tests.unit.bridge.support import LARGE, PATIENCE, Gate, file_sizes_up_to, files_of, new, opened
from tests.unit.kernels.forked import open_descriptors, opened_since

pytestmark = pytest.mark.anyio


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "node" / "store.db"


class Failing:
    """A fault point that fails as a disk does, while it is told to."""

    def __init__(self) -> None:
        self.point: FaultPoint | None = None

    def __call__(self, point: FaultPoint) -> None:
        if point == self.point:
            raise OSError(5, "Input/output error")


# Levels


def test_none_is_memory_and_the_others_are_files(tmp_path: Path) -> None:
    assert isinstance(open_store("none"), MemoryStore)
    with pytest.raises(ArgumentError, match="in a file or a database"):
        open_store("power")
    with pytest.raises(ArgumentError, match="power, process, none"):
        open_store("always")  # type: ignore[arg-type]


@pytest.mark.parametrize(("level", "synchronous"), [("power", 2), ("process", 1)])
def test_a_level_is_what_sqlite_calls_it(path: Path, level: Level, synchronous: int) -> None:
    path.parent.mkdir()
    connection = open_writer(path, level)
    assert connection.execute("PRAGMA synchronous").fetchone() == (synchronous,)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


# Reopening


async def test_all_is_there_after_opening_again(path: Path) -> None:
    async with opened(path) as store:
        await store.create(new("a", key="k", param=LARGE), now=1)
        await store.start("a", epoch=3, now=2)
        await store.append("a", [b"one", LARGE], after=0)
        await store.trim("a", 1)
        before, log = await store.get("a", now=3), await store.read("a", after=0)
    async with opened(path) as store:
        assert await store.get("a", now=4) == before
        assert await store.read("a", after=0) == log
        assert (await store.create(new("b", key="k"), now=5)) == (before, False)


async def test_only_the_owner_can_read_the_files(path: Path) -> None:
    async with opened(path) as store:
        await store.create(new("a", param=LARGE), now=1)
        for file in path.parent.iterdir():
            assert file.stat().st_mode & 0o077 == 0, file


# One node for each store


async def test_a_second_store_is_kept_out_while_the_first_is_open(path: Path) -> None:
    async with opened(path):
        with refused("store_locked"):
            SqliteStore(path)
    async with opened(path):
        pass


@pytest.mark.parametrize("linked", ["file", "directory"])
async def test_a_link_leads_to_the_same_store_with_its_lock_and_its_values(path: Path, linked: str) -> None:
    above = path.parent.parent
    (above / "link").symlink_to(path if linked == "file" else path.parent)
    link = above / "link" if linked == "file" else above / "link" / path.name
    async with opened(link) as store:  # which is not there yet
        await store.create(new("a", param=LARGE), now=1)
        with refused("store_locked"):
            SqliteStore(path)
    async with opened(path) as store:
        assert (await store.get("a", now=1)).param == LARGE
        with refused("store_locked"):
            SqliteStore(link)
    assert {each.name for each in above.iterdir()} == {path.parent.name, "link"}


async def test_a_file_with_several_names_is_refused(path: Path) -> None:
    async with opened(path) as store:
        other = path.with_name("other.db")
        other.hardlink_to(path)
        with pytest.raises(StoreError, match="has several names") as caught:
            SqliteStore(other)
        assert (caught.value.code, caught.value.hint[:23]) == ("store_refused", "Remove its other hard l")
        assert (await store.create(new("a"), now=1)).fresh
    assert not lock_of(other).exists()
    other.unlink()
    async with opened(path):
        pass


async def test_large_values_that_were_left_beside_a_link_are_not_taken_for_lost(path: Path) -> None:
    async with opened(path) as store:
        await store.create(new("a", param=LARGE), now=1)
    link = path.parent.parent / "link.db"
    link.symlink_to(path)
    values, beside = (each.with_name(f"{each.name}.values") for each in (path, link))
    values.rename(beside)
    with pytest.raises(StoreError, match="large values are beside the link") as caught:
        SqliteStore(link)
    assert (caught.value.code, caught.value.hint) == ("store_refused", f"Move the files in {beside} to {values}.")


async def test_another_process_is_kept_out_until_it_dies(path: Path) -> None:
    with other_process(path) as other:
        with pytest.raises(StoreError, match=rf"process {other.pid} uses the store {path} \(") as caught:
            SqliteStore(path)
        assert caught.value.code == "store_locked"
        other.kill()
        other.wait()
        async with opened(path) as store:
            await store.create(new("a"), now=1)


async def test_a_store_that_lost_its_lock_acknowledges_nothing_until_it_has_it_again(path: Path) -> None:
    async with opened(path) as store:
        lock_of(path).unlink()
        with other_process(path) as other:
            with refused("store_unavailable"):
                await store.create(new("a"), now=1)
            assert store.failure is not None
            other.kill()
            other.wait()
        assert (await store.create(new("a"), now=2)).fresh
        assert store.failure is None


async def test_a_database_that_was_taken_away_is_not_made_anew(path: Path) -> None:
    async with opened(path) as store:
        await store.create(new("a"), now=1)
        path.rename(path.with_name("elsewhere"))
        with refused("store_unavailable"):
            await store.create(new("b"), now=2)
        assert not path.exists()
        path.with_name("elsewhere").rename(path)
        assert (await store.create(new("b"), now=3)).fresh
        assert not (await store.create(new("a"), now=4)).fresh


# Versions


async def test_a_newer_schema_is_refused_with_a_hint_and_left_alone(path: Path) -> None:
    async with opened(path):
        pass
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match="has schema 99") as caught:
        SqliteStore(path)
    assert (caught.value.code, caught.value.hint[:14]) == ("store_refused", "Update Capsule")
    assert path.read_bytes() == before


@pytest.mark.parametrize("kind", ["database", "database with a log", "text"])
def test_a_file_of_another_program_is_refused_and_left_alone(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "other"
    if kind == "text":
        path.write_text("not a database\n" * 100)
    else:
        with sqlite3.connect(path) as connection:
            connection.execute(f"PRAGMA journal_mode = {'WAL' if 'log' in kind else 'DELETE'}")
            connection.execute("CREATE TABLE mine (x)")
        connection.close()
    before = path.read_bytes()
    with refused("store_refused"):
        SqliteStore(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_migration_that_fails_leaves_the_version_before(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.parent.mkdir()
    good = schema.migrations()
    bad = Migration(len(good) + 1, "CREATE TABLE more (x); CREATE TABLE promises (x);")
    monkeypatch.setattr(schema, "migrations", lambda: (*good, bad))
    with refused("store_unavailable"):
        SqliteStore(path)
    monkeypatch.undo()
    connection = open_writer(path, "process")
    assert connection.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'more'").fetchone() == (0,)
    assert connection.execute("PRAGMA user_version").fetchone() == (len(good),)
    connection.close()


# Cancellation and closing


async def test_a_call_that_is_canceled_while_it_is_committed_is_done_once(path: Path) -> None:
    gate = Gate("before_commit")
    async with opened(path, fault=gate) as store:
        call = asyncio.ensure_future(store.create(new("a", key="k"), now=1))
        await gate.reached()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        gate.open()
        assert not (await store.create(new("b", key="k"), now=2)).fresh


async def test_closing_finishes_what_was_asked_even_if_it_is_canceled(path: Path) -> None:
    gate = Gate("taken")
    store = SqliteStore(path, "process", fault=gate)
    calls = [asyncio.ensure_future(store.create(new(f"a{n}"), now=1)) for n in range(20)]
    await gate.reached()
    closing = asyncio.ensure_future(store.close())
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.gather(closing, return_exceptions=True)
    gate.open()
    assert all(fresh for _, fresh in await asyncio.gather(*calls))
    await store.close()
    async with opened(path) as store:
        assert len(await store.pending(now=2)) == 20


async def test_several_loops_may_use_and_close_it(path: Path) -> None:
    store = SqliteStore(path, "process")

    async def elsewhere() -> None:
        await store.create(new("a"), now=1)
        await store.close()

    await asyncio.gather(store.create(new("b"), now=1), asyncio.to_thread(asyncio.run, elsewhere()))
    await store.close()
    async with opened(path) as again:
        assert {promise.id for promise in await again.pending(now=2)} == {"a", "b"}


async def test_a_loop_that_ends_while_it_waits_does_no_harm(path: Path) -> None:
    gate = Gate("before_commit")
    async with opened(path, fault=gate) as store:

        async def give_up() -> None:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(store.create(new("a"), now=1), 0.01)

        await asyncio.to_thread(asyncio.run, give_up())
        gate.open()
        assert not (await store.create(new("a"), now=2)).fresh


async def test_a_store_that_is_closed_leaves_no_descriptor_and_answers_all_before(path: Path) -> None:
    before = open_descriptors()
    store = SqliteStore(path, "process")
    calls = [asyncio.ensure_future(store.create(new(f"a{n}"), now=1)) for n in range(20)]
    await asyncio.sleep(0)  # all have asked
    await store.close()
    assert all(created.fresh for created in await asyncio.gather(*calls))
    assert not opened_since(before)


# Failures


@pytest.mark.parametrize("point", ["begun", "file_written", "file_named", "executed", "before_commit", "committed"])
async def test_a_store_that_fails_says_so_and_works_again_afterwards(path: Path, point: FaultPoint) -> None:
    fault = Failing()
    async with opened(path, fault=fault) as store:
        await store.create(new("before", key="k"), now=1)
        fault.point = point
        calls = [store.create(new(f"a{n}", param=LARGE), now=1) for n in range(5)]
        for answer in await asyncio.gather(*calls, return_exceptions=True):
            assert isinstance(answer, StoreError)
            assert (answer.code, answer.retryable) == ("store_unavailable", True)
        assert store.failure is not None
        fault.point = None
        for n in range(5):
            # After the commit only the answer was lost: it is there, and asking again finds it.
            assert (await store.create(new(f"a{n}", param=LARGE), now=2)).fresh == (point != "committed")
        assert store.failure is None
        assert not (await store.create(new("x", key="k"), now=2)).fresh
        assert len(files_of(path)) == 5
        assert (await store.get("a3", now=3)).param == LARGE


async def test_a_full_disk_loses_nothing_and_needs_no_restart(path: Path) -> None:
    async with opened(path) as store:
        acknowledged, failures = [], list[BaseException | None]()
        with file_sizes_up_to(200_000):
            for n in range(200):
                call = asyncio.ensure_future(store.create(new(f"a{n}", param=b"x" * 5_000), now=1))
                await asyncio.wait([call])
                if call.exception() is None:
                    acknowledged.append(f"a{n}")
                else:
                    failures.append(call.exception())
        assert acknowledged
        assert {error.code for error in failures if isinstance(error, StoreError)} == {"store_unavailable"}
        assert (await store.create(new("again"), now=2)).fresh
        assert [promise.id for promise in await store.pending(now=3)] == [*acknowledged, "again"]


async def test_a_log_that_cannot_grow_is_copied_and_begins_again(path: Path) -> None:
    """Also when somebody reads: else it is copied when the writer's connection is closed, as the last one."""
    async with opened(path) as store:
        await store.pending(now=1)
        answers: list[object] = []
        with file_sizes_up_to(200_000):
            for n in range(20):
                answers += await asyncio.gather(
                    store.create(new(f"a{n}", param=b"x" * 5_000), now=1), return_exceptions=True
                )
        failures = [n for n, answer in enumerate(answers) if isinstance(answer, Exception)]
        assert failures
        assert not any(n + 1 in failures for n in failures)
        assert len(await store.pending(now=1)) == len(answers) - len(failures)


async def test_a_log_that_could_not_be_copied_is_copied_when_there_is_room(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And before it has grown by as much again, which might be all the room that somebody has made."""
    monkeypatch.setattr(writer, "CHECKPOINT_BYTES", 100_000)
    failures: list[Exception] = []

    def look(point: FaultPoint) -> None:
        if point == "checkpointed" and store.failure is not None:
            failures.append(store.failure)

    async with opened(path, fault=look) as store:
        await store.pending(now=1)
        with file_sizes_up_to(200_000):
            for n in range(100):
                await store.create(new(f"a{n}", param=b"x" * 5_000), now=1)
                if failures:
                    break
        for name in ("b", "c"):  # the first one is followed by the copying, which the second one waits for
            await store.create(new(name), now=1)
        assert failures
        assert path.stat().st_size > 200_000


# Damage


async def left_by_a_dead_process(path: Path) -> None:
    """A store with many pages, whose last process was killed."""
    async with opened(path) as store:
        await asyncio.gather(*(store.create(new(f"a{n}", param=b"x" * 1000), now=1) for n in range(200)))
    with other_process(path, "more") as other:
        assert path.with_name("store.db-wal").stat().st_size > 0
        other.kill()
        other.wait()


def spoil(path: Path) -> None:
    """Overwrite pages in the middle, which opening does not read."""
    with path.open("r+b") as file:
        for page in range(20, 40):
            file.seek(page * 4096)
            file.write(b"\xff" * 200)


async def test_a_store_that_was_closed_is_not_examined(path: Path) -> None:
    async with opened(path):
        pass
    async with opened(path) as store:
        assert store.examination is None


async def test_a_store_that_was_left_is_examined_and_found_whole(path: Path) -> None:
    await left_by_a_dead_process(path)
    async with opened(path) as store:
        assert store.examination is not None
        await asyncio.to_thread(store.examination.wait)
        assert store.failure is None
        assert (await store.create(new("b"), now=2)).fresh


async def test_a_damaged_store_is_told_and_writes_nothing_more(path: Path) -> None:
    await left_by_a_dead_process(path)
    spoil(path)
    async with opened(path) as store:
        assert store.examination is not None
        await asyncio.to_thread(store.examination.wait)
        assert isinstance(store.failure, StoreError)
        assert "damaged since its last node ended" in store.failure.message
        for call in (
            store.create(new("b"), now=2),
            store.append("a0", [b"x"], after=0),
            store.expire(now=2, retention=Retention()),
        ):
            with refused("store_damaged"):
                await call
        assert (await store.get("a0", now=2)).pending  # what can be read may be


async def test_damage_that_shows_by_itself_is_told_as_such(path: Path) -> None:
    async with opened(path) as store:
        await asyncio.gather(*(store.create(new(f"a{n}", param=b"x" * 1000), now=1) for n in range(200)))
    spoil(path)
    async with opened(path) as store:
        for call in (store.pending(now=2), store.settle(*(Settlement(f"a{n}", "cancel") for n in range(200)), now=2)):
            with refused("store_damaged"):
                await call
        assert isinstance(store.failure, StoreError | sqlite3.DatabaseError)


async def test_closing_does_not_wait_for_the_examination(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A statement that would go on for hours ends when it is interrupted."""
    await left_by_a_dead_process(path)
    begun = threading.Event()

    def endless(connection: sqlite3.Connection) -> list[str]:
        begun.set()
        connection.execute("WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n")
        raise AssertionError("it ended by itself")

    monkeypatch.setattr(damage, "damage", endless)
    store = SqliteStore(path, "process")
    assert await asyncio.to_thread(begun.wait, PATIENCE)
    await asyncio.wait_for(store.close(), PATIENCE)
    assert store.examination is not None
    assert store.examination.found is None


# SQL


@pytest.mark.parametrize("name", sorted(set(schema.queries()) - {"all_files"}))
def test_no_query_looks_at_all_rows(path: Path, name: str) -> None:
    """At the start `all_files` looks at all large values; everything else has to find its rows by an index."""
    path.parent.mkdir()
    connection = open_writer(path, "process")
    query = schema.queries()[name]
    named = {"after": 0, "now": 0, "session": None, "limit": 1}
    values = named if ":after" in query else (None,) * query.count("?")
    plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {query}", values)]
    connection.close()
    given = {"SCAN CONSTANT ROW", "SCAN new"}  # what no table has
    scans = [step for step in plan if step.startswith("SCAN") and step not in given]
    assert [*scans, *(step for step in plan if "TEMP B-TREE" in step)] == []


# What the writer remembers


async def test_what_was_rolled_back_is_not_remembered(path: Path) -> None:
    gate = Gate("taken")
    async with opened(path, fault=gate) as store:
        first = asyncio.ensure_future(store.create(new("a"), now=1))
        await gate.reached()
        # These share a transaction, which the last one spoils, so each is done again alone.
        later = [
            asyncio.ensure_future(call)
            for call in (
                store.append("a", [b"one"], after=0),
                store.create(new("b"), now=1),
                store.append("b", [b"one", b"two"], after=0),
                store.create(new("c", key=b"\xff".decode("latin-1")), now=2**80),
            )
        ]
        await asyncio.sleep(0)  # all have asked
        gate.open()
        *answers, wrong = await asyncio.gather(first, *later, return_exceptions=True)
        assert isinstance(wrong, OverflowError)
        assert [answer if isinstance(answer, int) else getattr(answer, "fresh", answer) for answer in answers] == [
            True,
            1,
            True,
            2,
        ]
        assert gate.passed["begun"] > gate.passed["committed"] >= 4
        for name, log in (("a", [b"one"]), ("b", [b"one", b"two"])):
            assert [event.data for event in (await store.read(name, after=0)).events] == log


@pytest.mark.parametrize("kept", [0, 1, 2, recent.KEPT])
async def test_it_makes_no_difference_what_is_remembered(
    path: Path, monkeypatch: pytest.MonkeyPatch, kept: int
) -> None:
    monkeypatch.setattr(recent, "KEPT", kept)
    async with opened(path) as store:
        fence = (await store.create(new("a", epoch=1, log=(b"one", b"two")), now=1)).promise.fence
        await store.create(new("b", parent="a"), now=2)
        await store.create(new("c", parent="b"), now=2)
        assert await store.append("a", [b"three"], after=2, fence=fence) == 3
        with pytest.raises(SessionError, match="promise_fenced"):
            await store.append("a", [b"four"], after=3, fence=Fence(1, 2))
        fence = (await store.start("a", epoch=2, now=3)).promise.fence
        with pytest.raises(LocalProtocolError, match="sequence_gap"):
            await store.settle(Settlement("a", "resolve", b"", fence, log=(b"five",), after=4), now=4)
        assert (await store.get("b", now=4)).pending
        ((settled, decided),) = await store.settle(
            Settlement("a", "resolve", b"value", fence, log=(b"four",), after=3), now=5
        )
        assert (settled.state, decided) == ("resolved", True)
        assert [(await store.get(name, now=6)).state for name in "abc"] == [
            "resolved",
            "rejected_canceled",
            "rejected_canceled",
        ]
        log = await store.read("a", after=0)
        assert [event.data for event in log.events] == [b"one", b"two", b"three", b"four"]
        with pytest.raises(SessionError, match="promise_settled"):
            await store.append("a", [b"more"], after=4)
        assert not (await store.settle(Settlement("a", "reject"), now=7))[0].decided
        await store.create(new("t", log=(b"one", b"two")), now=8)
        await store.trim("t", 1)
        assert await store.append("t", [b"gone", b"two", b"three"], after=0) == 3  # of what is gone nobody can say more


# Helpers


def lock_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.lock")


@contextmanager
def other_process(path: Path, *made: str) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that has opened the store, has made promises of these ids, and then waits."""
    code = (
        "import asyncio, sys; from pathlib import Path; from capsule_bridge import NewPromise, SqliteStore\n"
        "store = SqliteStore(Path(sys.argv[1]), 'process')\n"
        "for id in sys.argv[2:]: asyncio.run(store.create(NewPromise(id, 'execute', 's', b'same'), now=1))\n"
        "print('open', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, os.fspath(path), *made]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"open\n"
        try:
            yield process
        finally:
            process.kill()


async def test_a_commit_has_no_new_length_to_sync(path: Path) -> None:
    async with opened(path, "power") as store:
        log = path.with_name("store.db-wal")
        assert log.stat().st_size == LOG_BYTES
        for number in range(1_000):  # more than the log has room for, so that it is begun again
            await store.create(new(f"a{number}"), now=1)
        assert log.stat().st_size < LOG_BYTES * 1.5
    assert not log.exists()


async def test_a_log_that_cannot_have_its_length_keeps_its_own(path: Path) -> None:
    with file_sizes_up_to(2**20):
        async with opened(path, "power") as store:
            assert path.with_name("store.db-wal").stat().st_size < 2**20
            await store.create(new("a"), now=1)
            assert (await store.get("a", now=1)).pending
