"""A service whose store is PostgreSQL: it is restarted, killed, and loses its database."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from capsule import AsyncSession
from capsule.events import Finished
from capsule_bench.database import NoServerError, Server, server
from capsule_protocol.errors import StoreError
from tests.acceptance.operators.support import answer, capsule
from tests.acceptance.serve.support import LONG
from tests.acceptance.stores.support import LEASE, attached, begun, killed, node

pytestmark = pytest.mark.anyio

WAITS = "import os, time\nopen({mark!r}, 'a').write('x')\nwhile not os.path.exists({go!r}): time.sleep(0.01)\n'done'"


@pytest.fixture
def own(no_process_left: None) -> Iterator[Server]:
    """A server that the test may end."""
    try:
        with server() as one:
            yield one
    except NoServerError as error:
        pytest.skip(str(error))


async def test_what_was_acknowledged_is_there_after_a_crash(place: Path, url: str) -> None:
    count, mark = place / "count", place / "mark"
    code = f"with open({str(count)!r}, 'a') as file: file.write('x')\nfor n in range(300): print(n)\n6 * 7"
    with node(place / "a", url) as first:
        async with first.client() as client:
            session = await client.session(name="work")
            async with session.stream(code, key="k") as events:
                before = [event async for event in events]
            running = session.submit(WAITS.format(mark=str(mark), go=str(place / "never")))
            await begun(running, mark)
            queued = [session.submit("'ran'", key=f"q{n}") for n in range(12)]
            async with asyncio.timeout(LONG):
                while (await session.info()).queue < 4:  # behind those that the worker has already
                    await asyncio.sleep(0.005)
            await session.detach()
            killed(first)
    with node(place / "a", url) as second:
        async with second.client() as client:
            again = await client.attach("work")
            async with again.stream(code, key="k") as events:
                assert [event async for event in events] == before
            assert (await client.execution(running.execution_id).result(LONG)).verdict == "worker_lost"
            assert (await client.execution(queued[-1].execution_id).result(LONG)).text == "'ran'"
            assert again.epoch == 2
            assert second.stop() == 0
    assert isinstance(before[-1], Finished)
    assert count.read_text() == "x"


async def answered(session: AsyncSession, key: str | None = None) -> str:
    """What comes of some code at a node whose lease may have to be renewed first, for its database was away."""
    while True:
        try:
            return (await session.run("6 * 7", key=key)).text
        except StoreError:
            await asyncio.sleep(0.05)


async def test_a_database_that_goes_away_stops_the_intake_until_it_is_back(place: Path, own: Server) -> None:
    mark, go = place / "mark", place / "go"
    with node(place / "a", own.url()) as served:
        async with served.client() as client:
            session = await client.session(name="work")
            running = session.submit(WAITS.format(mark=str(mark), go=str(go)))
            await begun(running, mark)
            await asyncio.to_thread(own.stop)
            go.touch()
            for refused in (session.run("1", key="k"), client.session()):
                with pytest.raises(StoreError) as caught:
                    await refused
                assert (caught.value.code, caught.value.retryable) == ("store_unavailable", True)
            await asyncio.wait([asyncio.ensure_future(running.result())], timeout=0.3)
            assert not running.done  # nothing is told that is not written down
            await asyncio.to_thread(own.start)
            async with asyncio.timeout(LONG):
                assert (await running.result()).text == "'done'"
                assert await answered(session, key="k") == "42"
            assert session.epoch == 1


async def test_nodes_whose_database_was_away_for_longer_than_their_leases_do_not_take_each_other_for_dead(
    place: Path, own: Server
) -> None:
    with node(place / "a", own.url()) as first, node(place / "b", own.url()) as second:
        async with first.client() as client, second.client() as other:
            both = [await each.session(name=name) for each, name in ((client, "one"), (other, "two"))]
            await asyncio.to_thread(own.stop)
            await asyncio.sleep(2 * LEASE)  # not a wait for anything: the time is what is tried
            await asyncio.to_thread(own.start)
            async with asyncio.timeout(LONG):
                for session in both:
                    assert await answered(session) == "42"
            # Both look after the dead again, as shows by what they do when one is.
            await both[0].detach()
            killed(first)
            assert (await (await attached("one", other)).run("6 * 7")).text == "42"
            assert [session.epoch for session in both] == [1, 1]


async def test_a_node_that_dies_while_the_database_is_away_is_inherited_of_when_it_is_back(
    place: Path, own: Server
) -> None:
    mark = place / "mark"
    with node(place / "a", own.url()) as first, node(place / "b", own.url()) as second:
        async with first.client() as client, second.client() as other:
            session = await client.session(name="work")
            running = session.submit(WAITS.format(mark=str(mark), go=str(place / "never")))
            await begun(running, mark)
            await session.detach()
            await asyncio.to_thread(own.stop)
            killed(first)
            await asyncio.to_thread(own.start)
            assert (await (await attached("work", other)).run("6 * 7")).text == "42"
            assert (await other.execution(running.execution_id).result(LONG)).verdict == "worker_lost"


async def test_a_service_does_not_start_without_its_database_and_says_what_to_do(place: Path) -> None:
    with node(place / "a", f"postgresql://capsule:s3cret@/x?host={place}") as served:
        assert served.process.wait(LONG) == 3
        said = served.log.read_text()
        assert "store_unavailable" in said
        assert "Start the database, or correct the URL" in said
        assert "s3cret" not in said


async def test_a_database_that_does_not_sync_is_refused(place: Path) -> None:
    try:
        with server("fsync=off") as loose, node(place / "a", loose.url()) as served:
            assert served.process.wait(LONG) == 3
            assert "store_refused" in served.log.read_text()
    except NoServerError as error:
        pytest.skip(str(error))


async def test_its_store_can_be_looked_at_while_it_runs(place: Path, url: str) -> None:
    with node(place / "a", url) as served:
        named = ("--config", place / "a.toml")
        async with served.client() as client:
            session = await client.session(name="kept")
            await session.run("print('the output')")
            found = await answer("store", "info", *named)
            assert found["promises"]["resolved"] == 1
            assert list(found["nodes"].values()) == [True]
            again = await answer("store", "info", url)
            assert again | {"oldest_pending": found["oldest_pending"]} == found
            (user,) = found["nodes"]
            told = (await capsule("store", "info", url)).stdout.decode()
            assert re.search(rf"^used by +node {re.escape(user)}$", told, re.MULTILINE)
            assert (await answer("store", "check", *named))["ok"]
            done = await capsule("store", "export", "--decode", *named)
            *_, last = (json.loads(line) for line in done.stdout.splitlines())
            assert (last["record"], last["promises"]) == ("end", 2)
            assert b"the output\\n" in done.stdout
            done = await capsule("store", "compact", *named)
            assert (done.returncode, b"unsupported" in done.stderr) == (2, True)
