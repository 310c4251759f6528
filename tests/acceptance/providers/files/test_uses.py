"""What code does with files that it has been granted."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from capsule.broker.sdk import CHUNK_BYTES
from capsule.providers.files import FilesProvider, drafts, walking
from capsule_protocol.errors import ArgumentError, CapabilityDenied, CapabilityFailed
from tests.acceptance.providers.calls import Caller, services

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable

pytestmark = pytest.mark.anyio


async def code_of(work: Awaitable[object]) -> str:
    with pytest.raises((CapabilityDenied, CapabilityFailed)) as caught:
        await work
    return caught.value.code


# Reading


async def test_a_file_is_read(files: Caller) -> None:
    answer = await files("read", path="data/folder/file")
    assert answer.data == b"inside"
    assert answer.value.size == 6
    assert (await files("read", path="look/folder/file")).data == b"inside"


@pytest.mark.parametrize(
    ("offset", "length", "expected"),
    [
        (0, 3, b"ins"),
        (2, 3, b"sid"),
        (2, None, b"side"),
        (6, None, b""),
        (100, 5, b""),
        (0, 0, b""),
        (0, 2**62, b"inside"),
    ],
)
async def test_part_of_a_file_is_read(files: Caller, offset: int, length: int | None, expected: bytes) -> None:
    assert (await files("read", path="data/folder/file", offset=offset, length=length)).data == expected


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES, CHUNK_BYTES + 1, 7 * CHUNK_BYTES + 3])
async def test_a_file_of_any_size_comes_back_as_it_was_written(files: Caller, size: int) -> None:
    data = os.urandom(size)
    assert (await files("write", data, path="data/new")).value.size == size
    assert (await files("read", path="data/new")).data == data


async def test_a_file_that_grows_while_it_is_read_has_an_end(files: Caller, root: Path) -> None:
    (root / "log").write_bytes(bytes(5 * CHUNK_BYTES))

    async def grow(chunk: bytes) -> None:
        with (root / "log").open("ab") as log:
            log.write(2 * chunk)

    files.on_chunk = grow
    assert len((await files("read", path="data/log")).data) == 5 * CHUNK_BYTES


async def test_a_file_that_shrinks_while_it_is_read_ends_early(files: Caller, root: Path) -> None:
    (root / "log").write_bytes(bytes(5 * CHUNK_BYTES))

    async def shrink(_chunk: bytes) -> None:
        os.truncate(root / "log", 0)

    files.on_chunk = shrink
    assert len((await files("read", path="data/log")).data) == 2 * CHUNK_BYTES


# Writing


async def test_a_body_in_pieces_is_one_file(files: Caller, root: Path) -> None:
    await files("write", [b"one ", b"", b"two"], path="data/new")
    assert (root / "new").read_bytes() == b"one two"


async def test_a_file_keeps_its_mode_when_it_is_replaced(files: Caller, root: Path) -> None:
    (root / "folder" / "file").chmod(0o640)
    await files("write", b"new", path="data/folder/file")
    assert (root / "folder" / "file").read_text() == "new"
    assert (root / "folder" / "file").stat().st_mode & 0o7777 == 0o640


async def test_a_file_gets_no_power_of_the_one_it_replaces(files: Caller, root: Path) -> None:
    (root / "folder" / "file").chmod(0o4755)
    await files("write", b"new", path="data/folder/file")
    assert (root / "folder" / "file").stat().st_mode & 0o7777 == 0o755


async def test_a_new_file_has_the_mode_of_any_new_file(files: Caller, root: Path) -> None:
    (root / "plain").touch()
    await files("write", b"new", path="data/new")
    assert (root / "new").stat().st_mode == (root / "plain").stat().st_mode


async def test_a_file_may_be_made_only(files: Caller, root: Path) -> None:
    await files("write", b"first", path="data/new", exist_ok=False)
    assert await code_of(files("write", b"second", path="data/new", exist_ok=False)) == "path_exists"
    assert (root / "new").read_text() == "first"


async def test_what_is_made_meanwhile_is_not_replaced_either(files: Caller, root: Path) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"mine"
        (root / "new").write_text("theirs")

    assert await code_of(files("write", body(), path="data/new", exist_ok=False)) == "path_exists"
    assert (root / "new").read_text() == "theirs"


@pytest.mark.parametrize("sync", [False, True])
async def test_a_file_is_added_to_and_made_if_there_is_none(files: Caller, root: Path, sync: bool) -> None:
    assert (await files("append", b"one", path="data/log", sync=sync)).value.size == 3
    inode = (root / "log").stat().st_ino
    assert (await files("append", b" two", path="data/log", sync=sync)).value.size == 7
    assert (root / "log").read_text() == "one two"
    assert (root / "log").stat().st_ino == inode
    await files("write", b"three", path="data/log", sync=sync)
    assert (root / "log").read_text() == "three"


async def test_what_several_add_at_once_is_not_mixed(files: Caller, root: Path) -> None:
    size = 3 * CHUNK_BYTES + 7
    await asyncio.gather(*(files("append", bytes([n]) * size, path="data/log") for n in range(6)))
    data = (root / "log").read_bytes()
    assert len(data) == 6 * size
    assert all(len(set(data[start : start + size])) == 1 for start in range(0, len(data), size))


async def test_a_file_system_without_nameless_files_does_too(
    files: Caller, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drafts, "_CAN_BE_UNNAMED", False)
    await files("write", b"one", path="data/new")
    await files("write", b"two", path="data/new")
    await files("append", b" three", path="data/new")
    assert await code_of(files("write", b"four", path="data/new", exist_ok=False)) == "path_exists"
    assert (root / "new").read_text() == "two three"
    await files("write", b"five", path="data/other", exist_ok=False)
    assert sorted(path.name for path in root.iterdir()) == ["folder", "new", "other"]


# Looking


async def test_a_directory_is_listed_by_name(files: Caller, root: Path) -> None:
    (root / "ein name mit ümläuten").write_bytes(b"12345")
    (root / "link").symlink_to("folder")
    os.mkfifo(root / "pipe")
    answer = (await files("list", path="data")).value
    assert [(entry.name, entry.kind) for entry in answer.entries] == [
        ("ein name mit ümläuten", "file"),
        ("folder", "directory"),
        ("link", "link"),
        ("pipe", "other"),
    ]
    assert answer.entries[0].size == 5
    assert answer.entries[0].modified == (root / "ein name mit ümläuten").stat().st_mtime
    assert answer.left_out == 0


async def test_names_that_are_no_text_are_counted(files: Caller, root: Path) -> None:
    (root / os.fsdecode(b"\xff\xfe")).touch()
    answer = (await files("list", path="data")).value
    assert [entry.name for entry in answer.entries] == ["folder"]
    assert answer.left_out == 1
    assert (await files("glob", path="data", pattern="*")).value.left_out == 1


async def test_what_is_at_a_path_is_told(files: Caller) -> None:
    file = (await files("stat", path="data/folder/file")).value
    assert (file.kind, file.size, file.links) == ("file", 6, 1)
    assert (await files("stat", path="data/folder")).value.kind == "directory"
    assert (await files("stat", path="data")).value.kind == "directory"


@pytest.fixture
def tree(root: Path) -> Path:
    for name in ["a.csv", "b.txt", "folder/c.csv", "folder/inner/d.csv", ".hidden"]:
        (root / name).touch()
    (root / "link").symlink_to("folder")
    (root / "round").symlink_to(".")
    return root


@pytest.mark.parametrize(
    "pattern",
    [
        *("*", "*.csv", "**/*.csv", "folder/*", "*/*", "**/inner/*", "**/**/*.csv", "?.csv", "[ab].*", "folder"),
        *("none", "**/inner", "*/inner/d.csv", "**/folder/**/d.csv"),
    ],
)
async def test_patterns_find_what_pathlib_finds(files: Caller, tree: Path, pattern: str) -> None:
    """But for links, which are no matches and are not followed."""
    expected = sorted(
        f"data/{path.relative_to(tree)}"
        for path in tree.glob(pattern)
        if not any(part in {"link", "round"} for part in path.relative_to(tree).parts)
    )
    assert list((await files("glob", path="data", pattern=pattern)).value.paths) == expected


@pytest.mark.parametrize("pattern", ["*a" * 500, "[" * 1000, "**/" * 340 + "*", "**/*/" * 200 + "*", "?" * 1000])
async def test_no_pattern_takes_long(files: Caller, root: Path, pattern: str) -> None:
    """Those by which a search could be made to go on for ever."""
    folder = root
    for _ in range(10):
        folder = folder / (100 * "a")
        folder.mkdir()
    files.limits = {"timeout": 10.0}
    await files("glob", path="data", pattern=pattern)
    assert len(walking._compiled("**/" * 340 + "*")) == 2


@pytest.mark.parametrize("pattern", ["", "/", "/*", "../*", "a/../b", "a//b", "./a", "a**", "**a/b", "a\0", 1025 * "a"])
async def test_what_is_no_pattern_is_told(files: Caller, pattern: str) -> None:
    with pytest.raises(ValueError, match="pattern"):
        await files("glob", path="data", pattern=pattern)


async def test_two_stars_at_the_end_are_all_below(files: Caller, tree: Path) -> None:
    found = (await files("glob", path="data/folder", pattern="**")).value.paths
    assert found == ("data/folder/c.csv", "data/folder/file", "data/folder/inner", "data/folder/inner/d.csv")


# Changing


async def test_directories_are_made(files: Caller, root: Path) -> None:
    await files("mkdir", path="data/one")
    await files("mkdir", path="data/a/b/c", parents=True)
    assert (root / "one").is_dir()
    assert (root / "a" / "b" / "c").is_dir()
    await files("mkdir", path="data/a/b", exist_ok=True)
    assert await code_of(files("mkdir", path="data/a/b", parents=True)) == "path_exists"
    assert await code_of(files("mkdir", path="data/folder/file", exist_ok=True)) == "path_exists"
    assert await code_of(files("mkdir", path="data/none/new")) == "path_unknown"


async def test_of_directories_that_cannot_be_made_none_is(files: Caller, root: Path) -> None:
    name = 300 * "x"
    assert await code_of(files("mkdir", path=f"data/a/b/{name}", parents=True)) == "path_refused"
    assert await code_of(files("mkdir", path=f"data/a/{name}/c", parents=True)) == "path_refused"
    assert await code_of(files("mkdir", path="data/folder/file/a", parents=True)) == "path_not_directory"
    assert [path.name for path in root.iterdir()] == ["folder"]


async def test_files_and_directories_are_moved(files: Caller, root: Path) -> None:
    await files("move", source="data/folder/file", target="data/moved")
    assert (root / "moved").read_text() == "inside"
    await files("move", source="data/folder", target="data/other")
    assert (root / "other" / "inner").is_dir()
    (root / "new").write_text("new")
    assert await code_of(files("move", source="data/new", target="data/moved")) == "path_exists"
    assert await code_of(files("move", source="data/other", target="data/moved")) == "path_exists"
    await files("move", source="data/new", target="data/moved", overwrite=True)
    assert (root / "moved").read_text() == "new"
    assert await code_of(files("move", source="data/none", target="data/more")) == "path_unknown"
    assert await code_of(files("move", source="data/moved", target="data/none/more")) == "path_unknown"
    assert await code_of(files("move", source="data/moved", target="data/other", overwrite=True)) == "path_is_directory"
    assert await code_of(files("move", source="data/other", target="data/other/inner/x")) == "capability_failed"


async def test_a_move_does_without_the_call_that_looks_and_renames(
    files: Caller, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("capsule.providers.files.names._renameat2", lambda: None)
    await files("move", source="data/folder/file", target="data/moved")
    assert (root / "moved").read_text() == "inside"
    (root / "new").touch()
    assert await code_of(files("move", source="data/new", target="data/moved")) == "path_exists"
    assert await code_of(files("move", source="data/folder", target="data/other")) == "capability_failed"
    assert sorted(path.name for path in root.iterdir()) == ["folder", "moved", "new"]


async def test_files_and_directories_are_removed(files: Caller, root: Path, tree: Path) -> None:
    await files("remove", path="data/a.csv")
    assert await code_of(files("remove", path="data/folder")) == "path_not_empty"
    await files("remove", path="data/folder", recursive=True)
    assert sorted(path.name for path in root.iterdir()) == [".hidden", "b.txt", "link", "round"]
    assert await code_of(files("remove", path="data/folder")) == "path_unknown"
    await files("remove", path="data/folder", missing_ok=True)
    await files("remove", path="data/none/none", missing_ok=True)


async def test_a_directory_with_many_files_is_removed(files: Caller, root: Path) -> None:
    for number in range(700):
        (root / "folder" / str(number)).touch()
    await files("remove", path="data/folder", recursive=True)
    assert list(root.iterdir()) == []


# What is told of mistakes


async def test_mistakes_have_their_codes(files: Caller) -> None:
    assert await code_of(files("read", path="data/none")) == "path_unknown"
    assert await code_of(files("read", path="data/none/none")) == "path_unknown"
    assert await code_of(files("read", path="data/folder")) == "path_is_directory"
    assert await code_of(files("read", path="data")) == "path_is_directory"
    assert await code_of(files("write", b"x", path="data/folder")) == "path_is_directory"
    assert await code_of(files("append", b"x", path="data/folder")) == "path_is_directory"
    assert await code_of(files("write", b"x", path="data/none/file")) == "path_unknown"
    assert await code_of(files("list", path="data/folder/file")) == "path_not_directory"
    assert await code_of(files("read", path="data/folder/file/more")) == "path_not_directory"
    assert await code_of(files("stat", path="data/none")) == "path_unknown"


@pytest.mark.parametrize("operation", ["write", "append", "mkdir", "remove"])
async def test_a_root_that_may_only_be_read_is_not_changed(files: Caller, root: Path, operation: str) -> None:
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    for path in ("look/folder/file", "look/folder/inner", "look/new"):
        assert await code_of(files(operation, path=path)) == "capability_outside_grant"
    assert await code_of(files("move", source="look/folder", target="data/x")) == "capability_outside_grant"
    assert await code_of(files("move", source="data/folder", target="look/x")) == "capability_outside_grant"
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


@pytest.mark.parametrize("operation", ["write", "append", "mkdir", "remove"])
async def test_a_root_itself_stays(files: Caller, root: Path, operation: str) -> None:
    assert await code_of(files(operation, path="data")) == "path_refused"
    assert await code_of(files("move", source="data", target="data/x")) == "path_refused"
    assert await code_of(files("move", source="data/folder", target="data", overwrite=True)) == "path_refused"
    assert (root / "folder" / "file").read_text() == "inside"


async def test_a_listing_has_its_bound(root: Path) -> None:
    provider = FilesProvider()
    files = Caller(provider, {"roots": {"data": {"path": root}}, "max_entries": 3})
    for name in "ab":
        (root / name).touch()
    assert len((await files("list", path="data")).value.entries) == 3
    assert await code_of(files("glob", path="data", pattern="**")) == "capability_too_large"
    (root / "c").touch()
    assert await code_of(files("list", path="data")) == "capability_too_large"
    await provider.stop()


# Its life


async def test_a_grant_without_its_directory_is_refused(tmp_path: Path) -> None:
    provider = FilesProvider()
    (tmp_path / "file").touch()
    for path in (tmp_path / "none", tmp_path / "file"):
        with pytest.raises(ArgumentError, match=r"scope\.roots\.data\.path: .*; allowed: a directory that exists"):
            provider.check(provider.descriptor.scope.model_validate({"roots": {"data": {"path": path}}}))
    await provider.stop()


@pytest.mark.parametrize(
    "roots",
    [
        {},
        {"a/b": "/tmp"},
        {"..": "/tmp"},
        {"": "/tmp"},
        {"data": "tmp"},
        {"data": ""},
        {"data": "/tmp\0"},
        {"é": "/tmp"},
    ],
)
def test_a_scope_is_checked(roots: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="roots"):
        FilesProvider.descriptor.scope.model_validate({"roots": {name: {"path": path} for name, path in roots.items()}})


async def test_a_root_is_what_it_was_when_it_was_opened(files: Caller, root: Path, outside: Path) -> None:
    root.rename(root.with_name("elsewhere"))
    root.symlink_to(outside)
    assert (await files("read", path="data/folder/file")).data == b"inside"
    root.unlink()
    root.with_name("elsewhere").rename(root)


async def test_a_root_that_was_replaced_counts_for_scopes_that_are_checked_from_then_on(root: Path) -> None:
    provider = FilesProvider()
    scope = {"roots": {"data": {"path": root}}}
    files = Caller(provider, scope)
    (root / "big").write_bytes(bytes(5 * CHUNK_BYTES))
    later: list[Caller] = []

    async def replace(_chunk: bytes) -> None:
        if not (root / "new").exists():
            root.rename(root.with_name("old"))
            root.mkdir()
            (root / "new").write_text("new")
            later.append(Caller(provider, scope))

    files.on_chunk = replace
    assert len((await files("read", path="data/big")).data) == 5 * CHUNK_BYTES  # goes on in the old one
    (anew,) = later
    assert (await anew("read", path="data/new")).data == b"new"
    assert await code_of(files("read", path="data/new")) == "path_unknown"  # of a policy that may stay
    await provider.stop()


async def test_health_tells_of_a_root_that_is_gone(root: Path) -> None:
    provider = FilesProvider()
    await provider.start(services())
    (root / "empty").mkdir()
    files = Caller(provider, {"roots": {"data": {"path": root / "empty", "mode": "rw"}}})
    assert (await provider.health()).ok
    (root / "empty").rmdir()
    health = await provider.health()
    assert not health.ok
    assert str(root / "empty") in health.detail
    assert await code_of(files("write", b"x", path="data/x")) == "path_unknown"
    await provider.stop()
    assert not (await provider.health()).ok
    assert await code_of(files("read", path="data/x")) == "provider_unavailable"
