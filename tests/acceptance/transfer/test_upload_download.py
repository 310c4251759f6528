"""Files go into a session and out of it unchanged, in library mode and over a connection."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from capsule import ArgumentError, AsyncClient, Client, SessionError
from tests.acceptance.transfer.support import MIB, content, directory, names, value

if TYPE_CHECKING:
    from capsule import AsyncSession
    from tests.acceptance.serve.support import Served

pytestmark = pytest.mark.anyio

SIZES = [0, 1, MIB - 1, MIB, 9 * MIB + 1]


@pytest.mark.parametrize("size", SIZES)
async def test_bytes_come_back_as_they_were(session: AsyncSession, size: int, tmp_path: Path) -> None:
    data = content(size)
    info = await session.upload(data, "data")
    assert (info.name, info.size) == ("data", size)
    code = "import hashlib; hashlib.sha256(open('data', 'rb').read()).hexdigest()"
    assert await value(session, code) == hashlib.sha256(data).hexdigest()
    assert await session.download("data") == data
    await session.download("data", tmp_path / "data")
    assert (tmp_path / "data").read_bytes() == data
    assert names(tmp_path) == ["data"]


async def test_code_finds_an_upload_by_its_name(session: AsyncSession) -> None:
    await session.upload(b"one", "one")
    await session.upload(b"two", "deep/er/two")
    assert await value(session, "open('one').read(), open('deep/er/two').read()") == ("one", "two")


async def test_a_session_with_a_directory_of_the_users_has_its_own_too(served: Served, tmp_path: Path) -> None:
    for address in (None, served.address):
        async with AsyncClient(address) as client, client.session(cwd=tmp_path) as session:
            await session.upload(b"one", "one")
            assert await value(session, "import os; os.getcwd(), os.listdir()") == (str(tmp_path), [])
            assert await value(session, "open(os.path.join(os.environ['SESSION_FILES'], 'one')).read()") == "one"
    assert names(tmp_path) == []


async def test_without_a_directory_a_session_elsewhere_works_in_its_own(served: Served) -> None:
    async with served.client() as client, client.session() as session:
        assert await value(session, "import os; os.getcwd() == os.environ['SESSION_FILES']")


async def test_paths_and_files_can_be_uploaded(session: AsyncSession, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_bytes(b"1,2")
    assert (await session.upload(tmp_path / "in.csv")).name == "in.csv"
    assert (await session.upload(str(tmp_path / "in.csv"), "text path")).size == 3
    with (tmp_path / "in.csv").open("rb") as file:
        file.read(2)
        assert (await session.upload(file)).size == 1
        assert not file.closed
    assert (await session.upload(io.BytesIO(b"abc"), "memory")).size == 3
    read, write = os.pipe()
    os.write(write, b"flow")
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        assert (await session.upload(pipe, "pipe")).size == 4
    assert await value(session, "[open(n).read() for n in ('in.csv', 'text path', 'memory', 'pipe')]") == [
        "2",
        "1,2",
        "abc",
        "flow",
    ]


async def test_what_is_there_is_replaced_in_one_step_while_code_reads_it(session: AsyncSession) -> None:
    await session.upload(bytes(1000), "data")
    code = (
        "import os\nseen = set()\nwhile max(seen, default=0) < 3000000: seen.add(os.path.getsize('data'))\nsorted(seen)"
    )
    execution = session.submit(code, timeout=60)
    await session.upload(bytes(3_000_000), "data")
    result = await execution.result()
    assert result.text in {"[1000, 3000000]", "[3000000]"}


async def test_progress_is_told(session: AsyncSession) -> None:
    up: list[tuple[int, int | None]] = []
    down: list[tuple[int, int | None]] = []
    await session.upload(bytes(2 * MIB + 5), "data", progress=lambda *told: up.append(told))
    await session.download("data", progress=lambda *told: down.append(told))
    assert up == [(MIB, 2 * MIB + 5), (2 * MIB, 2 * MIB + 5), (2 * MIB + 5, 2 * MIB + 5)]
    assert down[-1] == (2 * MIB + 5, 2 * MIB + 5)


async def test_files_tells_what_there_is(session: AsyncSession) -> None:
    assert await session.files() == []
    await session.upload(b"12", "b")
    await session.upload(b"1", "a/x")
    odd = "import os; os.symlink('b', 'l'); os.symlink('/', 'r'); os.mkfifo('p'); os.mkdir('d'); open(b'\\xff', 'w')"
    (await session.run(odd)).raise_for_error()
    files = await session.files()
    assert [(file.name, file.size) for file in files] == [("a/x", 1), ("b", 2)]
    assert files[1].modified == ((await directory(session)) / "b").stat().st_mtime


def test_the_synchronous_client_does_the_same(served: Served, tmp_path: Path) -> None:
    told: list[int] = []
    for address in (None, served.address):
        with Client(address) as client, client.session(files={}) as session:
            assert session.upload(b"abc", "a", progress=lambda done, _: told.append(done)).size == 3
            assert session.download("a") == b"abc"
            session.download("a", to=tmp_path / "a", progress=lambda done, _: told.append(done))
            assert (tmp_path / "a").read_bytes() == b"abc"
            assert [file.name for file in session.files()] == ["a"]
    assert told == [3, 3, 3, 3]


async def test_many_at_once(session: AsyncSession) -> None:
    data = [content(2 * MIB + number) for number in range(8)]
    await asyncio.gather(*(session.upload(one, f"f{number}") for number, one in enumerate(data)))
    assert await asyncio.gather(*(session.download(f"f{number}") for number in range(8))) == data


async def test_bad_arguments_are_refused_before_anything_happens(session: AsyncSession, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="name: is missing"):
        await session.upload(b"x")
    with pytest.raises(ArgumentError, match=r"source: .* is no file"):
        await session.upload(tmp_path / "none")
    with pytest.raises(ArgumentError, match="source: is a int"):
        await session.upload(3, "x")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="source: gives str"):
        await session.upload(io.StringIO("x"), "x")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="name: must be a str"):
        await session.download(3)  # type: ignore[call-overload]
    with pytest.raises(ArgumentError, match="progress"):
        await session.upload(b"x", "x", progress=3)  # type: ignore[arg-type]
    await session.upload(b"x", "x")
    with pytest.raises(ArgumentError, match=r"to: .* is a folder"):
        await session.download("x", tmp_path)
    with pytest.raises(ArgumentError, match=r"to: .* cannot be written"):
        await session.download("x", tmp_path / "none" / "x")
    assert names(tmp_path) == []
    assert [file.name for file in await session.files()] == ["x"]


async def test_a_restart_begins_with_an_empty_directory(session: AsyncSession) -> None:
    await session.upload(b"x", "x")
    await session.restart()
    assert await session.files() == []
    with pytest.raises(SessionError) as caught:
        await session.download("x")
    assert caught.value.code == "file_unknown"


async def test_nothing_is_left_of_the_directory(session: AsyncSession) -> None:
    await session.upload(b"x", "x")
    there = await directory(session)
    assert there.exists()
    await session.close()
    assert not there.parent.exists()
