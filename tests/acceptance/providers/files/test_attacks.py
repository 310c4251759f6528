"""No path leads out of a root, whatever code makes of the path and of what is in the root."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from asyncinotify import Inotify, Mask

from capsule.beneath import MAX_DEPTH, MAX_PATH_BYTES
from capsule.broker.sdk import Call, Limits
from capsule.providers.files import FilesProvider
from capsule.providers.files.places import split
from capsule_protocol.errors import CapabilityDenied
from tests.acceptance.providers.calls import ASKER, Caller
from tests.acceptance.providers.files.asked import EVERY, all_refused, ask, outcome, outcomes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.anyio

REFUSED = all_refused()
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make device nodes and mounts")


@pytest.fixture(autouse=True)
def bait(root: Path) -> None:
    """Something that can be moved."""
    (root / "bait").write_text("bait")


# Paths


@pytest.mark.parametrize(
    "path",
    [
        *("", ".", "..", "/", "~", "data/", "/data", "./data", "data/.", "data/..", "data//folder"),
        *("data/./folder/file",),
        *("/etc/passwd", "../outside/file", "data/../outside/file", "data/folder/../../../outside/file", "data/.."),
        *("none/file", "DATA/folder/file", "dat", "data2/x", "root/folder/file", "{outside}/file"),
        *("data/{outside}/file",),
        *("data\0", "\0", "data/a\0b", "data/folder/file\0", "data/..\0", "data\0/folder"),
        *("data/" + 256 * "x", "data/" + 200 * "é", "data/" + (MAX_PATH_BYTES + 1) * "x", MAX_PATH_BYTES * "x"),
        *("data" + MAX_DEPTH * "/a", "data/" + 3000 * "a/" + "b", "data/folder/file/", "data/folder/"),
        *("\uff44ata/folder/file", "data\uff0ffolder", "data\u2215folder", "d\u200bata/folder", "file:///etc/passwd"),
        *("/proc/self/root/etc/passwd", "data/../../proc/self/environ", "/dev/fd/0", "data/../../../../../proc/1/root"),
    ],
)
async def test_what_is_no_path_below_a_root_is_refused(files: Caller, outside: Path, path: str) -> None:
    assert await outcomes(files, path.format(outside=outside)) == REFUSED


@pytest.mark.parametrize("path", ["data/\ud800", "\udcff", "data/\udc2e\udc2e/x"])
async def test_what_utf8_cannot_encode_is_refused(files: Caller, path: str) -> None:
    """No message can carry these; if one could, this is where it ends."""
    with pytest.raises(CapabilityDenied, match="path_refused"):
        split(files.scope, path)


@pytest.mark.parametrize(
    "name", ["\u2025", "..%2foutside%2ffile", "..\\outside", "%2e%2e", "...", ".. ", " ..", "\u202e", "a\n"]
)
async def test_what_only_looks_like_a_way_out_is_a_name(files: Caller, root: Path, name: str) -> None:
    assert await outcome(files, "read", f"data/{name}") == "path_unknown"
    assert await outcome(files, "write", f"data/{name}") == "done"
    assert (root / name).read_text() == "attack"


async def test_names_are_compared_as_they_are_written(files: Caller, root: Path) -> None:
    """Two ways to write é in Unicode are two names, here as in the file system."""
    (root / "caf\u00e9").write_text("composed")
    assert await outcome(files, "read", "data/cafe\u0301") == "path_unknown"
    assert await outcome(files, "write", "data/cafe\u0301") == "done"
    assert (root / "caf\u00e9").read_text() == "composed"


# Links


@pytest.mark.parametrize(
    "target",
    [
        *("{outside}/file", "{outside}", "../outside/file", "../outside", "folder/file", "folder"),
        *("nowhere", "link", "."),
        *("..", "/", "/etc/shadow", "/dev/zero", "/proc/self/root", "/proc/self/cwd", "/proc/self/fd/0"),
        *("/proc/self/exe",),
    ],
)
async def test_no_link_is_followed(files: Caller, root: Path, outside: Path, target: str) -> None:
    """Not even one that stays inside: nobody need tell them apart."""
    (root / "link").symlink_to(target.format(outside=outside))
    assert await outcomes(files, "data/link") == REFUSED
    assert await outcomes(files, "data/link/file") == REFUSED
    assert await outcomes(files, "data/link/new/file") == REFUSED
    assert os.readlink(root / "link") == target.format(outside=outside)  # noqa: PTH115


async def test_what_walks_by_itself_follows_no_link(files: Caller, root: Path, outside: Path) -> None:
    (root / "folder" / "link").symlink_to(outside)
    (root / "folder" / "inner" / "to file").symlink_to(outside / "file")
    found = (await files("glob", path="data", pattern="**")).value.paths
    assert found == ("data/bait", "data/folder", "data/folder/file", "data/folder/inner")
    assert (await files("glob", path="data", pattern="folder/link/*")).value.paths == ()
    await files("remove", path="data/folder", recursive=True)
    assert [path.name for path in root.iterdir()] == ["bait"]


async def test_a_link_that_is_put_in_the_way_during_a_write_leads_nowhere(
    files: Caller, root: Path, outside: Path
) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"attack"
        (root / "folder").rename(root / "aside")
        (root / "folder").symlink_to(outside)

    await files("write", body(), path="data/folder/file")
    assert (root / "aside" / "file").read_text() == "attack"


@pytest.mark.parametrize("operation", ["write", "append"])
async def test_a_name_that_becomes_a_link_during_the_call_is_refused(
    files: Caller, root: Path, outside: Path, operation: str
) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"attack"
        (root / "folder" / "file").unlink()
        (root / "folder" / "file").symlink_to(outside / "file")

    with pytest.raises(CapabilityDenied, match="path_refused"):
        await files(operation, body(), path="data/folder/file")
    assert [path.name for path in (root / "folder").iterdir() if not path.is_symlink()] == ["inner"]


# Hard links


@pytest.fixture
def hard(root: Path, outside: Path) -> None:
    """A second name, in the root, for the file outside."""
    (root / "hard").hardlink_to(outside / "file")


@pytest.mark.usefixtures("hard")
async def test_what_is_in_a_file_with_several_names_is_neither_told_nor_changed(files: Caller) -> None:
    for what in ("read", "write", "append", "move to"):
        assert await outcome(files, what, "data/hard") == "path_refused", what
    assert (await files("stat", path="data/hard")).value.links == 2


@pytest.mark.usefixtures("hard")
async def test_a_grant_can_allow_to_read_it_and_no_more(root: Path) -> None:
    provider = FilesProvider()
    files = Caller(provider, {"roots": {"data": {"path": root, "mode": "rw", "hard_links": True}}})
    assert (await files("read", path="data/hard")).data == b"secret"
    for what in ("write", "append", "move to"):
        assert await outcome(files, what, "data/hard") == "path_refused", what
    await provider.stop()


@pytest.mark.usefixtures("hard")
async def test_it_is_not_moved_to_a_root_that_shows_it(root: Path, tmp_path: Path) -> None:
    (tmp_path / "shown").mkdir()
    (root / "folder" / "second").hardlink_to(root / "hard")
    provider = FilesProvider()
    shown = {"path": tmp_path / "shown", "mode": "rw", "hard_links": True}
    files = Caller(provider, {"roots": {"data": {"path": root, "mode": "rw"}, "shown": shown}})
    for name in ("hard", "folder"):
        with pytest.raises(CapabilityDenied, match="path_refused"):
            await files("move", source=f"data/{name}", target=f"shown/{name}")
    assert list((tmp_path / "shown").iterdir()) == []
    await files("move", source="data/folder/file", target="shown/file")  # has but one name
    await files("move", source="data/hard", target="data/moved")
    await provider.stop()


async def test_a_directory_is_not_moved_to_a_root_that_shows_what_is_mounted(root: Path, tmp_path: Path) -> None:
    (tmp_path / "shown").mkdir()
    provider = FilesProvider()
    shown = {"path": tmp_path / "shown", "mode": "rw", "mounts": True}
    files = Caller(provider, {"roots": {"data": {"path": root, "mode": "rw"}, "shown": shown}})
    with pytest.raises(CapabilityDenied, match="path_refused"):
        await files("move", source="data/folder", target="shown/folder")
    await files("move", source="data/folder/file", target="shown/file")
    await provider.stop()


@pytest.mark.usefixtures("hard")
async def test_one_of_several_names_can_be_taken_away(files: Caller, root: Path) -> None:
    await files("move", source="data/hard", target="data/other")
    await files("remove", path="data/other")
    assert not (root / "other").exists()


@pytest.mark.parametrize("operation", ["write", "append"])
async def test_a_file_that_becomes_a_hard_link_during_the_call_is_refused(
    files: Caller, root: Path, outside: Path, operation: str
) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"attack"
        (root / "folder" / "file").unlink()
        (root / "folder" / "file").hardlink_to(outside / "file")

    with pytest.raises(CapabilityDenied, match="path_refused"):
        await files(operation, body(), path="data/folder/file")


# Special files


@pytest.fixture(params=["pipe", "socket", pytest.param("device", marks=as_root)])
def special(request: pytest.FixtureRequest, root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(root)  # the path of a socket may not be long
    if request.param == "pipe":
        os.mkfifo("special")
    elif request.param == "device":
        os.mknod("special", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    else:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("special")
    return root / "special"


async def test_special_files_are_refused(files: Caller, special: Path) -> None:
    assert await outcomes(files, "data/special") == REFUSED
    assert special.lstat()


async def test_special_files_are_not_even_opened(files: Caller, special: Path) -> None:
    """Opening a pipe wakes who waits at its other end; opening a device may do anything."""
    with Inotify(sync_timeout=0) as inotify:
        inotify.add_watch(special.parent, Mask.OPEN | Mask.ACCESS | Mask.MODIFY)
        for what in EVERY:
            await outcome(files, what, "data/special")
            await outcome(files, what, "data/special/file")
        await ask(files, "glob", "data")
        await ask(files, "list", "data")
        assert [event for event in inotify if event.name == Path("special")] == []
        (special.parent / "bait").write_text("is seen")
        assert [event for event in inotify if event.name == Path("bait")]


# Other file systems


@as_root
@pytest.mark.parametrize("what", ["directory", "file", "proc"])
def test_what_is_mounted_below_is_outside_unless_the_grant_says_so(
    root: Path, outside: Path, walk: str, what: str
) -> None:
    script = Path(__file__).with_name("mounted.py")
    command = ["unshare", "--mount", sys.executable, str(script), str(root), str(outside), walk, what]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[4])}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    refused, allowed = done.stdout.splitlines()
    assert refused == "{'path_refused'}"
    assert allowed == ("done " if what == "proc" else "done secret")  # files of /proc have no size, so nothing in them


async def test_what_nobody_has_admitted_is_not_done_either(root: Path) -> None:
    """The provider looks for itself: it does not rely on who has called it."""
    provider = FilesProvider()
    files = Caller(provider, {"roots": {"look": {"path": root}}})
    remove = provider.descriptor.operations["remove"].request.model_validate({"path": "look/folder/file"})
    call = Call("remove", remove, files.scope, ASKER, "key", Limits(), no_body(), no_answer)
    with pytest.raises(CapabilityDenied, match="capability_outside_grant"):
        await provider.call(call)
    assert (root / "folder" / "file").exists()
    await provider.stop()


async def no_body() -> AsyncIterator[bytes]:
    return
    yield b""


async def no_answer(_: object) -> None:
    raise AssertionError("nothing is answered")
