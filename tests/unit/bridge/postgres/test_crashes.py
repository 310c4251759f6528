"""The store in PostgreSQL loses its server or the way to it: nothing that it acknowledged is lost or comes twice."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

import asyncpg
import pytest

from capsule_bench.database import NoServerError, Server, server
from capsule_bridge import Settlement
from capsule_bridge.postgres import PostgresStore, connect
from capsule_protocol.errors import StoreError
from tests.unit.bridge import caller
from tests.unit.bridge.contract import refused
from tests.unit.bridge.linear import Call, explained
from tests.unit.bridge.restarts import restart_rounds
from tests.unit.bridge.support import new, postgres, schema_of

pytestmark = pytest.mark.anyio

ROUNDS = 3


@pytest.fixture(scope="module")
def own() -> Iterator[Server]:
    """A server that these tests may end."""
    try:
        with server() as one:
            yield one
    except NoServerError as error:
        pytest.skip(str(error))


@pytest.fixture
def place(tmp_path: Path) -> str:
    return schema_of(tmp_path)


# Crashes


async def test_a_server_that_comes_back_is_used_again_without_a_restart(own: Server, place: str) -> None:
    store = PostgresStore(own.url(), schema=place)
    await store.create(new("a", key="k"), now=1)
    await asyncio.to_thread(own.stop)
    for call in (store.create(new("b"), now=2), store.get("a", now=2), store.acquire("n", "o", seconds=1)):
        with refused("store_unavailable"):
            await call
    assert store.failure is not None
    own.start()
    assert await store.create(new("x", key="k"), now=3) == (await store.get("a", now=3), False)
    assert store.failure is None
    await store.close()


async def test_a_store_without_its_server_can_be_closed(own: Server, place: str) -> None:
    store = PostgresStore(own.url(), schema=place)
    await store.get("a", now=1) if await store.pending(now=1) else None
    store.subscribe(lambda _: None, lambda: ())
    await asyncio.to_thread(own.stop)
    await store.close()
    own.start()


async def test_nothing_acknowledged_is_lost_changed_or_doubled_by_a_crash(own: Server, place: str) -> None:
    tally = await restart_rounds(own, place, ROUNDS, seed=1)
    assert tally.wrong == []
    # If hardly anything was acknowledged, or nobody was cut off, the rounds say nothing.
    assert tally.facts > 50 * ROUNDS
    assert tally.unknown > ROUNDS


async def test_a_server_that_does_not_sync_is_refused(place: str) -> None:
    try:
        with server("fsync=off") as careless, pytest.raises(StoreError, match="fsync = off") as caught:
            PostgresStore(careless.url(), schema=place)
    except NoServerError as error:
        pytest.skip(str(error))
    assert caught.value.code == "store_refused"


async def test_a_server_that_answers_before_it_syncs_is_told_not_to(place: str) -> None:
    try:
        with server("synchronous_commit=off") as hasty:
            store = PostgresStore(hasty.url(), schema=place)
            await store.create(new("a"), now=1)
            assert store._writer._connection is not None
            work = store._writer._connection.fetchval("SHOW synchronous_commit")
            assert await asyncio.wrap_future(store._loop.submit(work)) == "on"
            await store.close()
    except NoServerError as error:
        pytest.skip(str(error))


# The way to it


Cut = Literal["before", "after"]


@asynccontextmanager
async def cutter(url: str, cut: Cut) -> AsyncIterator[tuple[str, asyncio.Event]]:
    """A way to the server that breaks at each commit while its event is set: before the server hears of it or after."""
    armed = asyncio.Event()
    target = f"{url.partition('host=')[2]}/.s.PGSQL.5432"
    tasks: list[asyncio.Task[None]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_unix_connection(target)
        task = asyncio.current_task()
        assert task is not None
        tasks.append(task)
        broken = asyncio.Event()

        async def answers() -> None:
            while (data := await there.read(65536)) and not broken.is_set():
                writer.write(data)
            broken.set()
            writer.close()

        answering = asyncio.ensure_future(answers())
        while data := await reader.read(65536):
            if armed.is_set() and b"COMMIT\0" in data:
                broken.set()
                if cut == "after":
                    back.write(data)
                    await answering  # which gets the server's answer, and passes it to nobody
                break
            back.write(data)
        answering.cancel()
        writer.close()
        back.close()

    with tempfile.TemporaryDirectory(prefix="cut-") as folder:
        listening = await asyncio.start_unix_server(serve, f"{folder}/.s.PGSQL.5432")
        async with listening:
            yield url.partition("host=")[0] + f"host={folder}", armed
            await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("cut", ["before", "after"])
async def test_an_outcome_that_is_not_known_is_said_to_be_so(place: str, cut: Cut) -> None:
    async with cutter(postgres().url(), cut) as (url, armed):
        store = await asyncio.to_thread(lambda: PostgresStore(url, schema=place))
        await store.create(new("before"), now=1)
        armed.set()
        with pytest.raises(StoreError, match="not known") as caught:
            await store.create(new("a"), now=1)
        assert (caught.value.code, caught.value.details) == ("store_unavailable", {"outcome": "unknown"})
        armed.clear()
        # It was done or it was not: asked again it is there, once.
        assert (await store.create(new("a"), now=2)).fresh == (cut == "before")
        assert (await store.settle(Settlement("a", "resolve"), now=3))[0].decided
        assert store.failure is None
        await store.close()


async def test_a_database_that_hangs_is_given_up_after_its_time(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    await PostgresStore(postgres().url(), schema=place).close()  # to make the tables may take longer
    monkeypatch.setattr(connect, "COMMAND_SECONDS", 2.0)
    store = PostgresStore(postgres().url(), schema=place)
    await store.create(new("a"), now=1)
    await store.get("a", now=1)
    hung = await processes_of(place)
    assert len(hung) == 2
    for process in hung:
        os.kill(process, signal.SIGSTOP)
    try:
        for call in (store.create(new("b"), now=2), store.get("a", now=2)):
            with refused("store_unavailable"):
                await call
        monkeypatch.undo()
        assert (await store.create(new("b"), now=3)).fresh
        assert (await store.get("a", now=3)).pending
    finally:
        for process in hung:
            os.kill(process, signal.SIGCONT)
    await store.close()


async def processes_of(place: str) -> list[int]:
    connection = await asyncpg.connect(postgres().url())
    found = await connection.fetch("SELECT pid FROM pg_stat_activity WHERE application_name = $1", f"capsule:{place}")
    await connection.close()
    return [pid for (pid,) in found]


# Order


async def test_some_order_explains_what_callers_of_two_nodes_heard(place: str) -> None:
    histories = caller.histories(postgres().url(), place, ["x", "y"])
    assert len(histories) == caller.PROMISES
    for history in histories.values():
        assert explained(history), history
    # If the two never met, this proves nothing.
    assert any(met(history) for history in histories.values())


def met(history: list[Call]) -> bool:
    """Whether calls of two processes were under way together, and one heard the other's verdict."""
    pairs = [(a, b) for a in history for b in history if a.argument[0] != b.argument[0]]
    heard = [(call.argument[0], call.answer[1][0]) for call in history if isinstance(call.answer, tuple)]
    return any(a.begin < b.end and b.begin < a.end for a, b in pairs) and any(who != whose for who, whose in heard)
