"""Huge pages for what a zygote's forks share."""

from __future__ import annotations

import ctypes
import mmap
import re
from pathlib import Path

import pytest

from capsule_kernels import hugepages
from tests.unit.kernels.alone import alone

pytestmark = pytest.mark.skipif(
    not Path("/sys/kernel/mm/transparent_hugepage").is_dir(), reason="this kernel has no huge pages"
)

PLACES = 4


def addresstold(memory: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


def told(memory: mmap.mmap, field: str) -> int:
    """A number of bytes that the system tells of the part between the guards."""
    address = addresstold(memory) + mmap.PAGESIZE
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if found := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            inside = int(found[1], 16) <= address < int(found[2], 16)
        elif inside and line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise LookupError(field)


def private() -> mmap.mmap:
    """Memory with a page on both sides that nobody may touch, so that it is a mapping of its own."""
    size = (PLACES + 1) * hugepages.SIZE
    memory = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    libc = ctypes.CDLL(None, use_errno=True)
    for guard in (0, size - mmap.PAGESIZE):
        place = ctypes.c_void_p(addresstold(memory) + guard)
        assert libc.mprotect(place, ctypes.c_size_t(mmap.PAGESIZE), 0) == 0
    return memory


def middle(memory: mmap.mmap) -> memoryview:
    return memoryview(memory)[mmap.PAGESIZE : -mmap.PAGESIZE]


@alone
def test_full_memory_is_gathered_and_holds_what_it_held() -> None:
    memory = private()
    view = middle(memory)
    content = bytes(range(256)) * (len(view) // 256)
    view[:] = content
    assert told(memory, "AnonHugePages") == 0, "the system did it by itself: this would test nothing"
    hugepages.gather()
    assert view == content
    assert told(memory, "AnonHugePages") >= (PLACES - 1) * hugepages.SIZE


@alone
def test_memory_that_is_hardly_used_stays_as_it_is() -> None:
    memory = private()
    view = middle(memory)
    for place in range(0, len(view), len(view) // 8):
        view[place] = 1
    before = told(memory, "Rss")
    hugepages.gather()
    assert told(memory, "Rss") == before
