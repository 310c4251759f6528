"""Trees of mounts, of which each worker gets a copy."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

import pytest

from capsule_kernels.sandbox import trees
from capsule_kernels.sandbox.syscalls import syscall
from tests.unit.kernels.alone import alone

OPTIONS = {"mode": "755", "size": "1m"}
NEWNS, REC, PRIVATE, SHARED = 0x00020000, 16384, 1 << 18, 1 << 20


def can_be_had() -> bool:
    """Needs root, and a kernel that can do it: elsewhere workers mount all by themselves, which other tests see to."""
    try:
        os.close(trees.grow(OPTIONS, lambda _root: None))
    except OSError:
        return False
    return True


pytestmark = pytest.mark.skipif(not can_be_had(), reason="there are no detached trees of mounts here")


def among_own_mounts() -> None:
    """Mounts that tell others of their kind, as those of most systems do; and a place that goes with them."""
    syscall("unshare", NEWNS)
    syscall("mount", None, b"/", None, REC | PRIVATE, None)
    syscall("mount", b"tmpfs", b"/dev/shm", b"tmpfs", 0, None)
    tempfile.tempdir = "/dev/shm"
    syscall("mount", None, b"/", None, REC | SHARED, None)


def source_with(text: str) -> str:
    source = tempfile.mkdtemp()
    Path(source, "inside").write_text(text)
    return source


def grown(source: str) -> int:
    def fill(root: str) -> None:
        Path(root, "place").mkdir()
        trees.graft(source, f"{root}/place")

    return trees.grow(OPTIONS, fill)


@alone
def test_a_copy_shows_what_was_put_into_the_tree_and_takes_nothing() -> None:
    among_own_mounts()
    tree, target = grown(source_with("seen")), Path(tempfile.mkdtemp())
    trees.plant(tree, str(target))
    assert (target / "place" / "inside").read_text() == "seen"
    for folder in (target, target / "place"):
        with pytest.raises(OSError) as raised:
            (folder / "new").mkdir()
        assert raised.value.errno == errno.EROFS


@alone
def test_what_is_mounted_in_one_copy_is_in_no_other() -> None:
    among_own_mounts()
    tree, one, other = grown(source_with("seen")), tempfile.mkdtemp(), tempfile.mkdtemp()
    trees.plant(tree, one)
    trees.plant(tree, other)
    trees.graft(source_with("of one"), f"{one}/place")
    assert Path(one, "place", "inside").read_text() == "of one"
    assert Path(other, "place", "inside").read_text() == "seen"


@alone
def test_what_is_mounted_later_where_it_came_from_is_not_in_a_copy() -> None:
    among_own_mounts()
    source, target = source_with("seen"), tempfile.mkdtemp()
    tree = grown(source)
    trees.plant(tree, target)
    trees.graft(source_with("later"), source)
    assert Path(target, "place", "inside").read_text() == "seen"


@alone
def test_a_tree_that_cannot_be_filled_leaves_no_descriptor() -> None:
    before = open_descriptors()
    with pytest.raises(FileNotFoundError):
        grown("/nowhere")
    assert open_descriptors() == before


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))
