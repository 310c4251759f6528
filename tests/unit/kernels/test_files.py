"""The worker writes the files of a session below its directory, whatever names and whatever is there already."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from capsule_kernels.files import write_all
from tests.unit.kernels.forked import open_descriptors, opened_since


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return work


def test_folders_are_made_and_files_replaced(here: Path) -> None:
    (here / "a").mkdir()
    (here / "a/old").write_bytes(b"longer than the new one")
    write_all([("a/old", b"new"), ("a/b/c", memoryview(b"1")), ("empty", b"")])
    assert (here / "a/old").read_bytes() == b"new"
    assert (here / "a/b/c").read_bytes() == b"1"
    assert (here / "empty").read_bytes() == b""


def test_no_name_leads_out_of_the_directory(here: Path) -> None:
    """The client and the node have refused such names; who speaks to the worker directly is refused here."""
    for name in ("../x", "a/../../x", str(here.parent / "x"), "", "a//x", ".", "a\0"):
        with pytest.raises(ValueError, match="not the name of a file"):
            write_all([(name, b"x")])
    assert list(here.parent.iterdir()) == [here]
    assert list(here.iterdir()) == []


def test_no_symbolic_link_is_followed(here: Path) -> None:
    outside = here.parent / "outside"
    outside.mkdir()
    (outside / "kept").write_bytes(b"kept")
    (here / "folder").symlink_to(outside)
    (here / "file").symlink_to(outside / "kept")
    (here / "dangling").symlink_to(outside / "new")
    for name in ("folder/new", "file", "dangling"):
        with pytest.raises(OSError, match=name):
            write_all([(name, b"x")])
    assert {path.name: path.read_bytes() for path in outside.iterdir()} == {"kept": b"kept"}


def test_what_cannot_be_written_is_named(here: Path) -> None:
    os.mkfifo(here / "pipe")  # without a reader: to wait for one would hold up the session
    (here / "folder").mkdir()
    (here / "file").touch()
    for name in ("pipe", "folder", "file/inner", "x" * 300):
        with pytest.raises(OSError, match=name):
            write_all([(name, b"x")])


def test_no_descriptor_is_left_open() -> None:
    before = open_descriptors()
    write_all([("a/b/c", b"1"), ("d", b"2")])
    with pytest.raises(OSError, match="a"):
        write_all([("a/b", b"1")])
    assert not opened_since(before)
