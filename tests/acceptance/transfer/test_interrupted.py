"""What interrupts a transfer costs no more than what was on its way."""

from __future__ import annotations

import asyncio
import errno
import gc
import io
import os
import resource
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from capsule import AsyncClient, SessionError
from tests.acceptance.serve.support import LONG, Served, through_proxy
from tests.acceptance.transfer.support import MIB, Leave, content, directory, leave_at, names

if TYPE_CHECKING:
    from pathlib import Path

    from capsule import AsyncSession

pytestmark = pytest.mark.anyio

DATA = content(12 * MIB + 3)


async def test_an_upload_that_was_left_goes_on(session: AsyncSession) -> None:
    first: list[int] = []
    second: list[int] = []
    with pytest.raises(Leave):
        await session.upload(DATA, "data", progress=leave_at(8 * MIB, first))
    assert await session.files() == []
    await session.upload(DATA, "data", progress=leave_at(len(DATA) + 1, second))
    assert second[0] - MIB == 8 * MIB  # nothing of what was sent was lost
    assert await session.download("data") == DATA


async def test_an_upload_of_something_else_begins_anew(session: AsyncSession) -> None:
    other = DATA[::-1]
    told: list[int] = []
    with pytest.raises(Leave):
        await session.upload(DATA, "data", progress=leave_at(8 * MIB, []))
    await session.upload(other, "data", progress=leave_at(len(DATA) + 1, told))
    assert told[0] == MIB
    assert await session.download("data") == other


async def test_a_download_that_was_left_goes_on(session: AsyncSession, tmp_path: Path) -> None:
    target = tmp_path / "data"
    second: list[int] = []
    await session.upload(DATA, "data")
    with pytest.raises(Leave):
        await session.download("data", target, progress=leave_at(8 * MIB, []))
    assert names(tmp_path) == [".data.part"]
    await session.download("data", target, progress=leave_at(len(DATA) + 1, second))
    assert second[0] == 9 * MIB
    assert target.read_bytes() == DATA
    assert names(tmp_path) == ["data"]


async def test_a_download_of_something_else_begins_anew(session: AsyncSession, tmp_path: Path) -> None:
    target = tmp_path / "data"
    told: list[int] = []
    (tmp_path / ".data.part").write_bytes(DATA[: 8 * MIB])
    await session.upload(DATA[::-1], "data")
    await session.download("data", target, progress=leave_at(len(DATA) + 1, told))
    assert told[0] == MIB
    assert target.read_bytes() == DATA[::-1]


async def test_a_download_of_less_than_is_there_begins_anew(session: AsyncSession, tmp_path: Path) -> None:
    (tmp_path / ".data.part").write_bytes(DATA)
    await session.upload(DATA[:5], "data")
    await session.download("data", tmp_path / "data")
    assert (tmp_path / "data").read_bytes() == DATA[:5]


@pytest.mark.parametrize("cuts", [(MIB,), (3 * MIB, 7 * MIB), (len(DATA),)])
async def test_a_lost_connection_is_not_noticed(served: Served, tmp_path: Path, cuts: tuple[int, ...]) -> None:
    async with through_proxy(served, served.directory.parent) as (proxy, client), client.session() as session:
        told: list[int] = []
        left = list(cuts)

        def progress(done: int, _total: int | None) -> None:
            told.append(done)
            if left and done >= left[0]:
                proxy.cut()
                left.pop(0)

        assert (await session.upload(DATA, "data", progress=progress)).size == len(DATA)
        assert not left
        left = list(cuts)
        await session.download("data", tmp_path / "data", progress=progress)
        assert (tmp_path / "data").read_bytes() == DATA
        assert not left
        assert proxy.connections >= 1 + len(cuts)
        again = [later for before, later in pairwise(told) if later <= before]
        assert len(again) <= 1 + 2 * len(cuts)  # the download begins, and each cut costs what was on its way
        assert await session.download("data") == DATA


async def test_a_connection_that_breaks_in_the_midst_of_messages(served: Served) -> None:
    async with served.client() as other, other.session(name="mine") as owner:
        await owner.upload(DATA, "data")
        await owner.detach()
        async with through_proxy(served, served.directory.parent) as (proxy, client):
            session = await client.attach("mine")
            proxy.after = 5 * MIB + 77_777  # each further connection
            proxy.cut()
            told: list[int] = []
            assert await session.download("data", progress=lambda done, _: told.append(done)) == DATA
            assert proxy.connections >= 3
            assert told == sorted(told), "it never began again"
            await session.close()


async def test_a_restart_ends_transfers(session: AsyncSession) -> None:
    restarting: list[asyncio.Task[None]] = []

    def restart(done: int, _total: int | None) -> None:
        if done == 2 * MIB:
            restarting.append(asyncio.ensure_future(session.restart()))

    with pytest.raises(SessionError) as caught:
        await session.upload(bytes(64 * MIB), "data", progress=restart)
    assert caught.value.code in {"session_dead", "file_changed", "session_restarting"}
    await restarting[0]
    assert await session.files() == []
    await session.upload(b"x", "data")
    assert await session.download("data") == b"x"


async def test_a_file_that_changes_is_no_file(session: AsyncSession, tmp_path: Path) -> None:
    await session.upload(DATA, "data")
    there = (await directory(session)) / "data"

    def change(done: int, _total: int | None) -> None:
        if done == MIB:
            with there.open("ab") as file:
                file.write(b"more")

    with pytest.raises(SessionError) as caught:
        await session.download("data", tmp_path / "data", progress=change)
    assert caught.value.code == "file_changed"
    assert names(tmp_path) == []


async def test_a_file_that_is_cut_short_is_no_file(session: AsyncSession) -> None:
    await session.upload(DATA, "data")
    there = (await directory(session)) / "data"
    with pytest.raises(SessionError) as caught:
        await session.download("data", progress=lambda *_: os.truncate(there, 100))
    assert caught.value.code == "file_changed"


async def test_an_upload_that_code_takes_away_is_told(session: AsyncSession) -> None:
    gathering = (await directory(session)).parent / "uploads"

    def take(done: int, _total: int | None) -> None:
        if done == MIB:
            for path in gathering.iterdir():
                path.unlink()

    with pytest.raises(SessionError) as caught:
        await session.upload(DATA, "data", progress=take)
    assert caught.value.code == "file_changed"
    assert await session.files() == []


async def test_a_disk_that_is_full_is_told_and_nothing_is_left(place: Path) -> None:
    with Served(place / "full") as served:
        async with served.client() as client, client.session() as session:
            there = await directory(session)
            before = resource.prlimit(served.process.pid, resource.RLIMIT_FSIZE)
            resource.prlimit(served.process.pid, resource.RLIMIT_FSIZE, (3 * MIB + 5, before[1]))
            with pytest.raises(SessionError) as caught:
                await session.upload(DATA, "data")
            assert caught.value.code == "transfer_failed"
            assert "File too large" in caught.value.message
            resource.prlimit(served.process.pid, resource.RLIMIT_FSIZE, before)
            await session.upload(DATA, "data")
            assert names(there.parent / "uploads") == []
            assert await session.download("data") == DATA
        assert served.stop() == 0
        assert served.log.read_text() == ""


async def test_a_node_and_its_client_hold_little_of_a_large_file(served: Served, tmp_path: Path) -> None:
    def resident(pid: int) -> int:
        return psutil.Process(pid).memory_info().rss

    pids = (served.process.pid, os.getpid())
    most = [0, 0]

    def look(_done: int, _total: int | None) -> None:
        most[:] = [max(before, resident(pid)) for before, pid in zip(most, pids, strict=True)]

    with (tmp_path / "large").open("wb") as file:
        file.truncate(256 * MIB)
    async with AsyncClient(served.address) as client, client.session() as session:
        await session.upload(b"", "warm")
        before = [resident(pid) for pid in pids]
        await session.upload(tmp_path / "large", progress=look)
        await session.download("large", tmp_path / "back", progress=look)
    grown = [after - earlier for after, earlier in zip(most, before, strict=True)]
    assert max(grown) < 64 * MIB


async def test_who_leaves_before_a_transfer_has_begun_takes_no_room(session: AsyncSession) -> None:
    for _ in range(20):
        for asked in (session.upload(DATA, "data"), session.download("data")):
            asking = asyncio.ensure_future(asked)
            await asyncio.sleep(0.002)  # into the midst of it, mostly
            asking.cancel()
            await asyncio.wait([asking])
    async with asyncio.timeout(LONG):
        while True:
            told = await asyncio.gather(*(session.upload(b"x", str(n)) for n in range(8)), return_exceptions=True)
            refused = [one for one in told if isinstance(one, BaseException)]
            if not refused:
                break
            assert {getattr(one, "code", "") for one in refused} == {"too_many_transfers"}
            await asyncio.sleep(0.05)  # the node hears of the last ones a little later


class BreaksOff(io.BytesIO):
    """A file that can be read once."""

    def read(self, size: int | None = -1, /) -> bytes:
        if self.tell():
            raise OSError(errno.EIO, "the disk is broken")
        return super().read(size)


async def test_what_was_read_ahead_and_failed_is_told_once_or_by_what_came_before(session: AsyncSession) -> None:
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: told.append(context))
    with pytest.raises(OSError, match="the disk is broken"):
        await session.upload(BreaksOff(DATA), "data")
    with pytest.raises(Leave):
        await session.upload(BreaksOff(DATA), "other", progress=leave_at(1, []))
    gc.collect()
    await asyncio.sleep(0)
    assert told == []
