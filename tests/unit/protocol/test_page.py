from __future__ import annotations

import mmap
import os
from typing import TYPE_CHECKING

import pytest

from capsule_protocol import page as pages
from capsule_protocol.page import (
    FLOOR,
    HELD,
    INTERRUPTED,
    PAGE_SIZE,
    RUNNING,
    SINCE,
    STARTED,
    TARGET,
    TEXT_SIZE,
    TIMED_OUT,
    Page,
)

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def both() -> Iterator[tuple[Page, Page]]:
    """The page as its two sides see it."""
    fd = pages.create()
    ends = Page(fd), Page(mmap.mmap(fd, PAGE_SIZE))
    os.close(fd)
    yield ends
    for end in ends:
        end.close()


def test_slots_are_seen_on_the_other_side(both: tuple[Page, Page]) -> None:
    node, worker = both
    slots = (TARGET, RUNNING, FLOOR, STARTED, SINCE, *HELD, TIMED_OUT, INTERRUPTED)
    assert [worker.get(slot) for slot in slots] == [0] * 9
    for number, slot in enumerate(slots):
        node.set(slot, 2**64 - 1 - number)
    assert [worker.get(slot) for slot in slots] == [2**64 - 1 - number for number in range(9)]


def test_slots_lie_where_the_specification_says(both: tuple[Page, Page]) -> None:
    node, _ = both
    node.set(STARTED, 0x0102)
    raw = bytes(node._map[:64])
    assert raw == bytes(24) + b"\x02\x01" + bytes(38)


def test_held_text_is_appended_up_to_its_bound(both: tuple[Page, Page]) -> None:
    node, worker = both
    assert worker.hold(0, b"abc") == 3
    assert worker.hold(0, b"def") == 3
    assert worker.hold(1, b"x" * (TEXT_SIZE + 5)) == TEXT_SIZE
    assert worker.hold(1, b"y") == 0
    assert node.held(0) == b"abcdef"
    assert node.held(1) == b"x" * TEXT_SIZE
    worker.release(0)
    assert node.held(0) == b""
    assert bytes(worker.text(1)[:2]) == b"xx"


def test_a_count_that_cannot_be_is_taken_as_the_whole_area(both: tuple[Page, Page]) -> None:
    node, worker = both
    worker.set(HELD[0], 2**64 - 1)
    assert len(node.held(0)) == TEXT_SIZE
    assert worker.hold(0, b"abc") == 0


def test_the_worker_cannot_change_the_size_of_the_page() -> None:
    fd = pages.create()
    try:
        for size in (0, PAGE_SIZE * 2):
            with pytest.raises(PermissionError):
                os.ftruncate(fd, size)
        assert not os.get_inheritable(fd)
    finally:
        os.close(fd)
