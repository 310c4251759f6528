"""Files as code in a session has them, through the broker."""

from __future__ import annotations

import textwrap
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from capsule import AsyncClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from capsule import AsyncSession

pytestmark = pytest.mark.anyio

POLICY = """
version = 1
name = "test"
pack = "perf"
sandbox = "none"

[[grants]]
name = "files"
capabilities = ["files.*"]
scope.roots.data = {{ path = "{root}", mode = "rw" }}
scope.roots.look = {{ path = "{root}" }}
"""


@pytest.fixture(autouse=True)
def walk() -> None:
    """As this machine walks."""


@asynccontextmanager
async def granted(root: Path) -> AsyncIterator[AsyncSession]:
    policy = root.parent / "policy.toml"
    policy.write_text(POLICY.format(root=root), encoding="utf-8")
    async with AsyncClient(broker={"policy": policy}) as client, client.session() as session:
        yield session


async def value(session: AsyncSession, code: str) -> str:
    result = await session.run(code)
    assert result.verdict == "ok", result.error
    return str(result.text)


USES = """
caps.files.write("data/new", b"one")
caps.files.append("data/new", data=(piece for piece in (b" two", b" three")))
caps.files.mkdir("data/a/b", parents=True)
caps.files.move("data/new", "data/a/b/moved")
found = caps.files.glob("data", "**/moved").paths
seen = caps.files.read("look/a/b/moved")
names = [entry["name"] for entry in caps.files.list("data").entries]
caps.files.remove("data/a", recursive=True)
print(seen, list(found), names, caps.files.stat("data").kind)
"""


async def test_code_uses_files(root: Path) -> None:
    async with granted(root) as session:
        result = await session.run(USES)
        assert result.stdout == "b'one two three' ['data/a/b/moved'] ['a', 'folder'] directory\n", result.error
    assert [path.name for path in root.iterdir()] == ["folder"]


ERRORS = """
caught = []
for path in ("data/../outside/file", "data/link", "/etc/passwd", "data/none", "data/folder"):
    try:
        caps.files.read(path)
    except (PermissionError, FileNotFoundError, IsADirectoryError) as error:
        caught.append(error.code)
try:
    caps.files.write("look/new", b"x")
except PermissionError as error:
    caught.append(error.code)
print(*caught)
"""


async def test_errors_are_those_of_open(root: Path, outside: Path) -> None:
    (root / "link").symlink_to(outside / "file")
    async with granted(root) as session:
        result = await session.run(ERRORS)
        codes = [*["path_refused"] * 3, "path_unknown", "path_is_directory", "capability_outside_grant"]
        assert result.stdout.split() == codes, result.error


async def test_large_files_go_both_ways(root: Path) -> None:
    async with granted(root) as session:
        code = 'import os; data = os.urandom(40 * 2**20 + 5); caps.files.write("data/big", data)'
        await value(session, code)
        assert await value(session, 'caps.files.read("data/big") == data') == "True"
        assert (root / "big").stat().st_size == 40 * 2**20 + 5


async def test_events_come_while_code_watches(root: Path) -> None:
    """Each is told when it happens, and not with the answer: here the code itself causes the next one."""
    code = """
    seen = []
    for number, lines in enumerate(caps.files.watch.stream("data", seconds=30)):
        seen += [json.loads(line)["event"] for line in lines.splitlines()]
        if number == 2:
            break
        caps.files.write(f"data/{number}", b"")
    print(seen)
    """
    async with granted(root) as session:
        result = await session.run("import json\n" + textwrap.dedent(code))
        assert result.stdout == "['ready', 'created', 'created']\n", result.error
