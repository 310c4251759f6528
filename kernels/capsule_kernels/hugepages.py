"""The memory of a zygote in huge pages: a fork then copies one entry of its page tables where there were 512.

For each worker those tables are copied twice and taken down twice. What a worker writes to is still copied to it in
pages of the ordinary size. Only memory that is full is gathered, so it takes no more of it than before.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

SIZE: Final = 2 * 2**20
"""Bytes of a huge page on x86_64, and on aarch64 as it is mostly configured; elsewhere nothing is gathered."""
MOST: Final = 4096
"""So many places are looked at, 8 GiB: some libraries reserve much more, and use nothing of it."""
_ENTRY: Final = 8
"""Bytes that `/proc/self/pagemap` has for a page."""
_PRESENT: Final = 0x80
"""The highest bit of an entry, in its last byte: the page is in memory."""
_FULL: Final = 7 / 8
_COLLAPSE: Final = 25
"""MADV_COLLAPSE, since Linux 6.1."""

_libc = ctypes.CDLL(None, use_errno=True)


def gather() -> None:
    """Gather what this process has in memory of its own. Where that cannot be, all stays as it is."""
    with suppress(OSError):
        pages = os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
        try:
            for start in list(islice(_places(), MOST)):
                if _is_full(pages, start):
                    _libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(SIZE), _COLLAPSE)
        finally:
            os.close(pages)


def _places() -> Iterator[int]:
    """Where huge pages could be: in private memory, which no file is behind."""
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:  # noqa: PTH123
        for line in maps:
            where, rights, _, _, inode, *name = line.split(maxsplit=5)
            if rights != "rw-p" or inode != "0" or (name and name[0].strip() != "[heap]"):
                continue
            start, end = (int(address, 16) for address in where.split("-"))
            yield from range(-(-start // SIZE) * SIZE, end - SIZE + 1, SIZE)


def _is_full(pages: int, start: int) -> bool:
    count = SIZE // mmap.PAGESIZE
    entries = os.pread(pages, count * _ENTRY, start // mmap.PAGESIZE * _ENTRY)
    present = sum(byte >= _PRESENT for byte in entries[_ENTRY - 1 :: _ENTRY])
    return present >= count * _FULL
