"""No name leads out of a directory, whatever hostile code makes of what is in it."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from capsule import beneath
from capsule.beneath import MAX_DEPTH
from capsule.node.transfers.beneath import MAX_NAME_BYTES, folder_of, open_file, open_top
from capsule.node.transfers.listing import list_files
from capsule_protocol.errors import SessionError
from tests.unit.kernels.forked import open_descriptors, opened_since

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture(params=["in one call", "in steps"])
def top(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A directory with an innocent file, beside one with a secret; walked in both ways."""
    monkeypatch.setattr(beneath, "_HAS_OPENAT2", request.param == "in one call")
    (tmp_path / "box" / "files" / "folder").mkdir(parents=True)
    (tmp_path / "box" / "files" / "folder" / "file").write_text("inside")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").write_text("secret")
    descriptor = open_top(tmp_path / "box", "files")
    yield descriptor
    os.close(descriptor)


@pytest.fixture
def inside(tmp_path: Path) -> Path:
    return tmp_path / "box" / "files"


def content(top: int, name: str) -> str:
    descriptor, status = open_file(top, name)
    with os.fdopen(descriptor) as file:
        assert stat.S_ISREG(status.st_mode)
        return file.read()


def code_of(work: Callable[[], object]) -> str:
    before = open_descriptors()
    with pytest.raises(SessionError) as caught:
        work()
    assert not opened_since(before)
    return caught.value.code


def test_a_file_below_is_opened(top: int) -> None:
    assert content(top, "folder/file") == "inside"


def test_openat2_is_what_walks_on_this_system(top: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """If it fails, only the steps are tested here: the kernel, or a filter, does not have it."""
    if beneath._HAS_OPENAT2:
        monkeypatch.setattr(beneath, "_hold_in_steps", None)
    assert content(top, "folder/file") == "inside"


@pytest.mark.parametrize(
    "name",
    [
        *("", ".", "..", "/", "/etc/passwd", "../outside/file", "folder/../../outside/file", "folder/..", "./folder"),
        *("folder//file", "folder/", "folder/./file", "a\0b", "folder/file\0", "\ud800", "x" * (MAX_NAME_BYTES + 1)),
        *("/".join(MAX_DEPTH * ["a"]) + "/b", "/proc/self/fd/0", "..\0"),
    ],
)
def test_what_is_no_name_below_is_refused(top: int, name: str) -> None:
    def enter() -> None:
        with folder_of(top, name, create=True):
            pytest.fail("it was entered")

    assert code_of(lambda: open_file(top, name)) == "file_refused"
    assert code_of(enter) == "file_refused"


def test_what_is_not_there_is_unknown(top: int) -> None:
    assert code_of(lambda: open_file(top, "none")) == "file_unknown"
    assert code_of(lambda: open_file(top, "none/file")) == "file_unknown"


@pytest.mark.parametrize("target", ["{out}/file", "../../outside/file", "folder/file", "/dev/zero", "nowhere", "link"])
def test_no_link_is_followed_at_the_end(top: int, inside: Path, tmp_path: Path, target: str) -> None:
    (inside / "link").symlink_to(target.format(out=tmp_path / "outside"))
    assert code_of(lambda: open_file(top, "link")) == "file_refused"


@pytest.mark.parametrize("target", ["{out}", "../../outside", "folder", "/proc/self/cwd", "/proc/self/fd", "link", "."])
def test_no_link_is_followed_on_the_way(top: int, inside: Path, tmp_path: Path, target: str) -> None:
    (inside / "link").symlink_to(target.format(out=tmp_path / "outside"))

    def enter() -> None:
        with folder_of(top, "link/new", create=True):
            pytest.fail("it was entered")

    assert code_of(lambda: open_file(top, "link/file")) == "file_refused"
    assert code_of(enter) == "file_refused"
    assert sorted(path.name for path in (tmp_path / "outside").iterdir()) == ["file"]


def test_a_pipe_is_refused_and_waited_for_by_nobody(top: int, inside: Path) -> None:
    os.mkfifo(inside / "pipe")
    assert code_of(lambda: open_file(top, "pipe")) == "file_refused"
    assert code_of(lambda: open_file(top, "pipe/file")) == "file_refused"


def test_sockets_and_folders_are_refused(top: int, inside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(inside)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        assert code_of(lambda: open_file(top, "socket")) == "file_refused"
    assert code_of(lambda: open_file(top, "folder")) == "file_refused"
    assert code_of(lambda: open_file(top, "folder/file/more")) == "file_refused"


def test_the_directory_itself_may_be_no_link(top: int, tmp_path: Path) -> None:
    assert top
    (tmp_path / "box" / "link").symlink_to(tmp_path / "outside")
    (tmp_path / "false").symlink_to(tmp_path / "box")
    for box, name in ((tmp_path / "box", "link"), (tmp_path / "false", "files")):
        with pytest.raises(OSError, match=r"Not a directory|Too many levels"):
            open_top(box, name)


SWAP = """
import ctypes, sys
libc = ctypes.CDLL(None)
folder, link = (name.encode() for name in sys.argv[1:])
print("swapping", flush=True)
while libc.renameat2(-100, folder, -100, link, 2) == 0:  # RENAME_EXCHANGE: at each moment there are both
    pass
"""


def test_a_folder_that_is_swapped_for_a_link_meanwhile_leads_nowhere(top: int, inside: Path, tmp_path: Path) -> None:
    """The classic race: between the look at a name and its use it becomes another thing."""
    (inside / "link").symlink_to(tmp_path / "outside")
    command = [sys.executable, "-c", SWAP, str(inside / "folder"), str(inside / "link")]
    seen: set[str] = set()
    with subprocess.Popen(command, stdout=subprocess.PIPE) as swapping:
        assert swapping.stdout is not None
        swapping.stdout.readline()
        tries = 0
        while tries < 3000 or len(seen) < 2:
            tries += 1
            try:
                seen.add(content(top, "folder/file"))
            except SessionError as error:
                seen.add(error.code)
        swapping.kill()
    assert seen == {"inside", "file_refused"}


def test_a_listing_follows_nothing(top: int, inside: Path, tmp_path: Path) -> None:
    (inside / "link").symlink_to(tmp_path / "outside")
    (inside / "to file").symlink_to(tmp_path / "outside" / "file")
    (inside / "round").symlink_to(".")
    os.mkfifo(inside / "pipe")
    assert [file.name for file in list_files(top)] == ["folder/file"]


def test_a_listing_has_its_bound(top: int, inside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("capsule.node.transfers.listing.MAX_ENTRIES", 10)
    for number in range(8):
        (inside / str(number)).touch()
    assert len(list_files(top)) == 9
    (inside / "one more").touch()
    assert code_of(lambda: list_files(top)) == "too_many_files"


def test_a_listing_goes_down_only_so_far(top: int, inside: Path) -> None:
    folder = inside
    for _ in range(MAX_DEPTH + 5):
        folder = folder / "d"
    folder.mkdir(parents=True)
    (folder / "file").touch()
    assert [file.name for file in list_files(top)] == ["folder/file"]
