"""Clients that do not keep to what was said of streams harm nobody, and leave nothing behind."""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from capsule import CapsuleError, SessionError
from capsule.node.front.unix import UNREAD_MOST
from tests.acceptance.serve.support import LONG, Served
from tests.acceptance.transfer.support import MIB, Raw, content, directory, greeted, names

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from capsule import AsyncSession
    from capsule_protocol.envelope import Envelope

pytestmark = pytest.mark.anyio


@pytest.fixture
async def raw(served: Served) -> AsyncIterator[Raw]:
    async with greeted(served) as raw:
        raw.session = (await raw.ask("open", {})).session
        yield raw
        await raw.say("close", {})
        await raw.hear("status")


def held(pid: int, box: Path) -> int:
    """How many descriptors a process has of what is in a directory."""
    count = 0
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed while we looked
            count += link.readlink().is_relative_to(box)
    return count


async def upload(raw: Raw, stream: str, name: str = "data", offset: object = 0) -> Envelope:
    reply = await raw.ask("upload", {"stream": stream, "name": name})
    assert reply.type == "upload_reply"
    await raw.say("stream_open", {"stream": stream, "metadata": {"offset": offset}})
    return await raw.hear("stream_credit", "stream_close")


async def test_what_the_specification_says_is_enough_to_move_files(raw: Raw) -> None:
    data = content(100)
    assert (await upload(raw, "t")).body["size"] >= 100
    await raw.say("stream_data", {"stream": "t"}, data[:60], data[60:])
    digest = hashlib.sha256(data).hexdigest()
    await raw.say("stream_close", {"stream": "t", "metadata": {"digest": digest}})
    closed = await raw.hear("stream_close")
    assert closed.body["error"] is None
    assert (closed.body["metadata"]["name"], closed.body["metadata"]["size"]) == ("data", 100)
    prefix = hashlib.sha256(data[:30]).hexdigest()
    reply = await raw.ask("download", {"stream": "u", "name": "data", "offset": 30, "digest": prefix})
    assert (reply.body["offset"], reply.body["size"]) == (30, 100)
    await raw.hear("stream_open")
    await raw.say("stream_credit", {"stream": "u", "size": 50})
    assert (await raw.hear("stream_data")).buffers == (data[30:80],)
    await raw.say("stream_credit", {"stream": "u", "size": 50})
    assert (await raw.hear("stream_data")).buffers == (data[80:],)
    assert (await raw.hear("stream_close")).body["metadata"]["digest"] == digest


async def test_a_stream_that_nobody_asked_for_is_closed_at_once(raw: Raw) -> None:
    await raw.say("stream_open", {"stream": "t"})
    assert (await raw.hear("stream_close")).body["error"]["code"] == "transfer_failed"
    assert (await raw.ask("files", {})).body["entries"] == []


@pytest.mark.parametrize("offset", [5, -1, "0", None, 2**70])
async def test_an_offset_that_was_not_offered_ends_the_stream(raw: Raw, offset: object) -> None:
    if offset == 2**70:
        offset = 2**63
    assert (await upload(raw, "t", offset=offset)).body["error"]["code"] == "transfer_failed"
    assert (await raw.ask("files", {})).body["entries"] == []


async def test_a_name_that_is_in_use_is_refused(raw: Raw) -> None:
    await upload(raw, "t")
    for kind in ("upload", "download"):
        assert (await raw.ask(kind, {"stream": "t", "name": "data"})).body["code"] == "invalid_argument"


async def test_a_wrong_digest_leaves_nothing(raw: Raw, served: Served) -> None:
    await upload(raw, "t")
    await raw.say("stream_data", {"stream": "t"}, b"data")
    await raw.say("stream_close", {"stream": "t", "metadata": {"digest": 64 * "0"}})
    assert (await raw.hear("stream_close")).body["error"]["code"] == "checksum_mismatch"
    assert (await raw.ask("files", {})).body["entries"] == []


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a\0b", "a/../b", "", "link/file", "link"])
async def test_names_that_lead_astray_are_refused_by_the_node_itself(raw: Raw, served: Served, name: str) -> None:
    await raw.run("import os; os.symlink('/etc', 'link')")
    asked = "link/passwd" if name == "link/file" else name
    assert (await raw.ask("download", {"stream": "t", "name": asked})).body["code"] == "file_refused"
    if name != "link":  # an upload of this name replaces the link
        assert (await raw.ask("upload", {"stream": "t", "name": asked})).body["code"] == "file_refused"


async def test_more_than_there_is_credit_for_costs_the_connection_only(served: Served, place: Path) -> None:
    with Served(place / "greedy", "[serve]\nreconnect_timeout = 0.5\n") as other:
        async with other.client() as client, client.session() as honest:
            async with greeted(other) as greedy:
                greedy.session = (await greedy.ask("open", {})).session
                credit = (await upload(greedy, "t")).body["size"]
                await greedy.say("stream_data", {"stream": "t"}, bytes(credit + 1))
                assert (await greedy.hear("error")).body["code"] == "credit_exceeded"
                with pytest.raises((EOFError, ConnectionError)):
                    await greedy.hear("nothing")
            assert (await honest.upload(b"x", "x")).size == 1
        assert other.stop() == 0
    assert served.process.poll() is None


async def test_downloads_that_nobody_reads_hold_next_to_nothing(served: Served, raw: Raw) -> None:
    """No credit: nothing is read. The eighth is the last, and the session answers all the same."""
    await raw.run("open('large', 'w').truncate(2**30)")
    before = psutil.Process(served.process.pid).memory_info().rss
    for number in range(8):
        assert (await raw.ask("download", {"stream": f"t{number}", "name": "large"})).type == "download_reply"
        await raw.hear("stream_open")
    assert (await raw.ask("download", {"stream": "t9", "name": "large"})).body["code"] == "too_many_transfers"
    assert psutil.Process(served.process.pid).memory_info().rss - before < 16 * MIB
    for number in range(8):
        await raw.say("stream_close", {"stream": f"t{number}"})
        await raw.hear("stream_close")
    assert (await raw.ask("download", {"stream": "t9", "name": "large"})).type == "download_reply"


async def test_a_reader_that_gives_credit_and_does_not_read_is_dropped(served: Served, place: Path) -> None:
    """Else the node would hold all of a file that it has the credit to send."""
    with Served(place / "generous", "[serve]\nreconnect_timeout = 0.5\n") as other:
        async with other.client() as client, client.session() as honest, greeted(other) as generous:
            generous.session = (await generous.ask("open", {})).session
            await generous.run("open('large', 'w').truncate(2**34)")
            await generous.ask("download", {"stream": "t", "name": "large"})
            await generous.hear("stream_open")
            before = psutil.Process(other.process.pid).memory_info().rss
            await generous.say("stream_credit", {"stream": "t", "size": 2**34})
            async with asyncio.timeout(LONG):
                while (await client.info()).clients > 1:
                    assert (await honest.run("6 * 7")).text == "42"
            assert psutil.Process(other.process.pid).memory_info().rss - before < UNREAD_MOST + 64 * MIB
            with pytest.raises((EOFError, ConnectionError)):
                await generous.hear("nothing")
        assert other.stop() == 0


async def test_a_connection_that_ends_leaves_no_descriptor(served: Served) -> None:
    async with served.client() as client, client.session(name="kept") as session:
        there = await directory(session)
        await session.upload(b"x", "x")
        await session.detach()
        for _ in range(3):
            async with greeted(served) as raw:
                raw.session = (await raw.ask("attach", {"name": "kept"})).session
                await upload(raw, "t")
                await raw.say("stream_data", {"stream": "t"}, b"data")
                await raw.ask("download", {"stream": "u", "name": "x"})
        again = await client.attach("kept")
        async with asyncio.timeout(LONG):
            while len(names(there.parent / "uploads")) > 1:
                await asyncio.sleep(0.05)  # the node puts away what was interrupted, in a time of its own
            # The one that is kept to go on with: its file, and its two folders.
            while held(served.process.pid, there.parent) > 3:
                await asyncio.sleep(0.05)
        await again.close()


async def test_a_session_that_is_taken_over_ends_the_others_transfer(served: Served) -> None:
    async with served.client() as client, served.client() as other:
        session = await client.session(name="mine")
        taken: list[asyncio.Task[AsyncSession]] = []

        def take(done: int, _total: int | None) -> None:
            if done == 2 * MIB:
                taken.append(asyncio.ensure_future(other.attach("mine")))

        with pytest.raises(SessionError) as caught:
            await session.upload(bytes(64 * MIB), "data", progress=take)
        assert caught.value.code in {"session_dead", "session_taken"}
        again = await taken[0]
        assert (await again.upload(b"x", "x")).size == 1
        await again.close()


async def test_a_node_that_is_told_twice_to_end_ends_its_transfers(place: Path) -> None:
    with Served(place / "ending") as served:
        async with served.client() as client:
            session = await client.session()

            def end(done: int, _total: int | None) -> None:
                if done in {2 * MIB, 32 * MIB}:  # further apart than what may be on its way: it hears both
                    served.process.terminate()

            with pytest.raises(CapsuleError) as caught:
                await session.upload(bytes(512 * MIB), "data", progress=end)
            assert caught.value.code in {"node_closed", "session_closed", "session_dead", "connection_lost"}
        assert served.process.wait(LONG) == 0
        assert served.log.read_text() == ""
