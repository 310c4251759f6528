"""A service that is told to end lets the files that are on their way arrive, within its time limit, and no others."""

from __future__ import annotations

import asyncio
import hashlib
import io
import itertools
import signal
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from capsule import SessionError
from tests.acceptance.serve.support import LONG, Served
from tests.acceptance.transfer.support import MIB, Raw, content, greeted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from capsule import AsyncSession

pytestmark = pytest.mark.anyio

DATA = content(64 * MIB)
"""More than what may be on its way in all buffers together."""
PATIENT = "[serve]\ndrain_timeout = 600.0\n"
NUMBERS = itertools.count()
BRIEF = "[serve]\ndrain_timeout = 0.5\n"


@contextmanager
def mortal(place: Path, config: str) -> Iterator[Served]:
    """A node of its own: what it writes down, the next one would read."""
    with Served(place / f"mortal-{next(NUMBERS)}", config) as served:
        yield served
        assert served.log.read_text() == ""


async def ended(served: Served) -> int:
    return await asyncio.to_thread(served.process.wait, LONG)


async def refusal(session: AsyncSession) -> str | None:
    """The code with which a transfer is refused; None if it was taken."""
    try:
        await session.upload(b"", "late")
    except SessionError as error:
        return error.code
    return None


async def drains(session: AsyncSession) -> None:
    """Wait until the node has heard the signal."""
    async with asyncio.timeout(LONG):
        while (code := await refusal(session)) is None:
            pass
    assert code == "node_closed"


async def begin_download(raw: Raw, *, credit: int) -> None:
    """Have the node send a file of DATA, and hear its first bytes."""
    await raw.say("open", {})
    raw.session = (await raw.hear("ready")).session
    await raw.run(f"open('data', 'wb').truncate({len(DATA)})")
    assert (await raw.ask("download", {"stream": "t", "name": "data"})).type == "download_reply"
    await raw.hear("stream_open")
    await raw.say("stream_credit", {"stream": "t", "size": credit})


async def test_a_download_whose_reader_is_slow_goes_on_to_its_end(place: Path) -> None:
    with mortal(place, PATIENT) as served:
        async with served.client() as client, client.session() as session, greeted(served) as raw:
            await begin_download(raw, credit=MIB)
            arrived = bytearray((await raw.hear("stream_data")).buffers[0])
            served.process.send_signal(signal.SIGTERM)
            await drains(session)
            with pytest.raises(SessionError, match="no more transfers"):
                await session.download("late")
            while len(arrived) < len(DATA):
                await raw.say("stream_credit", {"stream": "t", "size": MIB})
                arrived += (await raw.hear("stream_data")).buffers[0]
            closed = await raw.hear("stream_close")
            assert closed.body["error"] is None
            assert closed.body["metadata"]["digest"] == hashlib.sha256(arrived).hexdigest()
            assert [one.state for one in await client.sessions()] == ["ready", "ready"]  # the reader is not done yet
            await raw.say("stream_close", {"stream": "t"})
            assert await ended(served) == 0


async def test_a_download_of_the_client_is_whole(place: Path, tmp_path: Path) -> None:
    with mortal(place, PATIENT) as served:
        async with served.client() as client, client.session() as session:
            await session.upload(DATA, "data")
            told = False

            def tell(_done: int, _total: int | None) -> None:
                nonlocal told
                if not told:
                    told = True
                    served.process.send_signal(signal.SIGTERM)

            await session.download("data", tmp_path / "data", progress=tell)
            assert (tmp_path / "data").read_bytes() == DATA
            assert await ended(served) == 0


async def test_an_upload_whose_source_is_slow_goes_on_to_its_end(place: Path) -> None:
    go = threading.Event()

    class Slow(io.BytesIO):
        """A file whose second half comes late."""

        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() >= len(DATA) // 2:
                assert go.wait(LONG)
            return super().read(size)

    with mortal(place, PATIENT) as served:
        async with served.client() as client, client.session() as session:
            begun = asyncio.Event()
            upload = asyncio.ensure_future(
                session.upload(Slow(DATA), "data", progress=lambda _done, _total: begun.set())
            )
            await begun.wait()
            served.process.send_signal(signal.SIGTERM)
            await drains(session)
            assert served.process.poll() is None
            go.set()
            assert (await upload).size == len(DATA)
            assert await ended(served) == 0


@pytest.mark.parametrize("credit", [MIB, len(DATA)], ids=["gives no credit", "does not read"])
async def test_a_reader_that_takes_no_more_is_cut_at_the_time_limit(place: Path, credit: int) -> None:
    with mortal(place, BRIEF) as served:
        async with greeted(served) as raw:
            await begin_download(raw, credit=credit)
            served.process.send_signal(signal.SIGTERM)
            assert await ended(served) == 0
            size = 0
            with suppress(EOFError, ConnectionResetError):
                while True:
                    message = await raw.line.receive()
                    if message.type == "stream_close":
                        assert message.body["error"]["code"] == "session_dead"
                    size += sum(map(len, message.buffers))
            assert size < len(DATA)


async def test_a_second_signal_waits_for_no_file(place: Path) -> None:
    with mortal(place, PATIENT) as served:
        async with served.client() as client, client.session() as session, greeted(served) as raw:
            await begin_download(raw, credit=MIB)
            await raw.hear("stream_data")
            served.process.send_signal(signal.SIGTERM)
            await drains(session)
            served.process.send_signal(signal.SIGTERM)
            assert await ended(served) == 0
