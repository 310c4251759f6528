"""A session finds the files that it was given in its working directory, and they are nobody else's."""

from __future__ import annotations

import ast
import os
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest

from capsule import ArgumentError, AsyncClient, AsyncSession, Client, SessionOptions
from capsule.client.files import Files

pytestmark = pytest.mark.anyio

LOOK = "import os; sorted(os.path.join(at, name)[2:] for at, _, names in os.walk('.') for name in names)"


async def value(session: AsyncSession, code: str) -> Any:
    result = await session.run(code)
    result.raise_for_error()
    return ast.literal_eval(result.text)


async def test_files_are_there_when_the_code_begins(client: AsyncClient, tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("1,2")
    given: Files = {
        "data/in.csv": b"\x00\xff",
        "text": "é",
        "copied": tmp_path / "table.csv",
        "helper.py": "answer = 42",
    }
    async with client.session(files=given) as session:
        assert await value(session, LOOK) == ["copied", "data/in.csv", "helper.py", "text"]
        assert await value(session, "open('data/in.csv', 'rb').read(), open('copied').read()") == (b"\x00\xff", "1,2")
        assert await value(session, "import helper; helper.answer, open('text').read()") == (42, "é")


async def test_the_directories_to_go_back_to_begin_where_the_session_does(client: AsyncClient, tmp_path: Path) -> None:
    for given in (client.session(cwd=tmp_path), client.session()):
        async with given as session:
            began = await value(session, "import os; os.getcwd()")
            assert await value(session, "list(map(str, _dh))") == [began]
            await session.run("%cd -q /usr")
            await session.run("%cd -q -")
            assert await value(session, "os.getcwd()") == began
            assert (await session.run("%cd no-such-directory")).stdout.endswith(f"\n{began}\n")


def test_the_synchronous_client_takes_them_too() -> None:
    with Client() as client, client.session(files={"a": "1"}) as session:
        assert session.run("open('a').read()").text == "'1'"


async def test_each_session_has_a_directory_of_its_own_that_ends_with_it(client: AsyncClient) -> None:
    async with client.session(files={"a": "1"}) as one, client.session(files={"a": "2"}) as other:
        first, second = [Path(await value(session, "import os; os.getcwd()")) for session in (one, other)]
        assert first != second
        assert first.stat().st_mode & 0o777 == 0o700
        change = "open('a', 'w').write('3'); os.mkdir('locked'); open('locked/x', 'w'); os.chmod('locked', 0)"
        (await one.run(change)).raise_for_error()
        assert await value(other, "open('a').read()") == "2"
        assert first.exists()
    assert not first.exists()
    assert not first.parent.exists()
    assert not second.exists()


async def test_a_killed_box_leaves_no_files(cold: AsyncClient) -> None:
    session = await cold.session(files={"a/b": "1"})
    directory = Path(await value(session, "import os; os.getcwd()"))
    box = psutil.Process((await session.info()).pid).ppid()
    running = session.submit("while True: pass")
    os.kill(box, signal.SIGKILL)
    assert (await running.result()).verdict in {"crashed", "worker_lost"}
    await session.close()
    assert not directory.exists()


async def test_code_that_clears_its_directory_does_not_clear_the_boxs(client: AsyncClient) -> None:
    async with client.session(files={"a": "1"}) as session:
        await session.run("import os, shutil; there = os.getcwd(); os.chdir('/'); shutil.rmtree(there)")
        assert await value(session, "sorted(os.listdir(os.path.dirname(there)))") == ["control.sock", "shell.sock"]


async def test_without_files_no_directory_is_made(client: AsyncClient) -> None:
    async with client.session(cwd="/", files={}) as session:
        assert await value(session, "import os; os.getcwd()") == "/"


async def test_with_a_directory_they_are_written_there_and_stay(client: AsyncClient, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old and longer")
    async with client.session(cwd=tmp_path, files={"a": "1", "b/c": "2"}) as session:
        assert await value(session, "import os; os.getcwd(), open('a').read()") == (str(tmp_path), "1")
    assert (tmp_path / "b/c").read_text() == "2"


async def test_a_link_out_of_the_directory_is_refused_and_the_argument_named(
    client: AsyncClient, tmp_path: Path
) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work/link").symlink_to(tmp_path)
    with pytest.raises(ArgumentError, match=r"files: .*link/x") as caught:
        await client.session(cwd=tmp_path / "work", files={"link/x": "1"})
    assert caught.value.argument == "files"
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("name", ["/tmp/x", "../x", "a\0b"])
async def test_a_bad_name_is_refused_before_anything_is_started(name: str) -> None:
    async with AsyncClient() as client:
        with pytest.raises(ArgumentError, match="files"):
            client.session(files={name: "1"})
        assert (await client.info()).pools["default"].state == "unused"


async def test_options_that_nobody_has_checked_are_refused_by_the_worker(client: AsyncClient) -> None:
    with pytest.raises(ArgumentError, match=r"files: .*not the name of a file") as caught:
        await client.open(SessionOptions(files={"../x": b"1"}))
    assert caught.value.argument == "files"


async def test_a_restart_writes_them_anew(client: AsyncClient) -> None:
    async with client.session(files={"a": "1"}) as session:
        before = await value(session, "import os; open('a', 'w').write('2'); open('b', 'w'); os.getcwd()")
        await session.restart()
        assert not Path(before).exists()
        assert await value(session, LOOK) == ["a"]
        assert await value(session, "open('a').read()") == "1"


async def test_as_much_as_is_allowed_arrives(client: AsyncClient) -> None:
    data = os.urandom(2**20) * 32
    async with client.session(files={"large": data[:-5]}) as session:
        assert await value(session, "import os; os.path.getsize('large')") == 32 * 2**20 - 5
