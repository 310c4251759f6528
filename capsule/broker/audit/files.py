"""The files of a trail: their names, appending to one, and reading lines out of them."""

from __future__ import annotations

import contextlib
import os
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_NAME = re.compile(r"audit-([0-9]{8,12})\.jsonl")


def name(number: int) -> str:
    """The name of a file of records."""
    return f"audit-{number:08d}.jsonl"


def numbers(folder: Path) -> list[int]:
    """Which files there are, from the oldest on."""
    return sorted(int(found[1]) for path in folder.iterdir() if (found := _NAME.fullmatch(path.name)))


class Appending:
    """A file that whole lines are appended to: of one that could not be written nothing stays."""

    def __init__(self, path: Path, *, anew: bool = False) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        self.path = path
        self.descriptor = os.open(path, flags | (os.O_TRUNC if anew else 0), 0o600)
        self.size = os.fstat(self.descriptor).st_size
        self.unsynced = False
        self.fresh = self.size == 0
        """Whether its name may have to be synced too."""
        self._torn = False

    def write(self, line: bytes) -> None:
        """Append a line, or several. Raises OSError, and has then written nothing."""
        if self._torn:
            os.ftruncate(self.descriptor, self.size)
            self._torn = False
        data = line + b"\n"
        done = 0
        try:
            while done < len(data):
                done += os.write(self.descriptor, data[done:])
        except BaseException:
            self._torn = True
            with contextlib.suppress(OSError):
                os.ftruncate(self.descriptor, self.size)
                self._torn = False
            raise
        self.size += len(data)
        self.unsynced = True

    def cut(self) -> int:
        """Remove an unfinished last line; the number of its bytes."""
        whole = last_end(self.descriptor, self.size)
        bytes_ = self.size - whole
        if bytes_:
            os.ftruncate(self.descriptor, whole)
            self.size = whole
            self.unsynced = True
        return bytes_

    def close(self) -> None:
        """Let it go. Idempotent."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def last_end(descriptor: int, size: int) -> int:
    """Where the last whole line ends."""
    end = size
    while end > 0:
        begin = max(0, end - 2**16)
        found = os.pread(descriptor, end - begin, begin).rfind(b"\n")
        if found >= 0:
            return begin + found + 1
        end = begin
    return 0


def lines(path: Path) -> Iterator[bytes]:
    """The whole lines of a file, without their ends."""
    with path.open("rb", buffering=2**18) as file:
        for line in file:
            if not line.endswith(b"\n"):
                return  # written now, perhaps: what would be read next is the rest of it
            yield line[:-1]


def backwards(path: Path) -> Iterator[bytes]:
    """The same from the last one on."""
    with path.open("rb") as file:
        end = last_end(file.fileno(), os.fstat(file.fileno()).st_size)
        held = b""
        while end > 0:
            begin = max(0, end - 2**16)
            held = os.pread(file.fileno(), end - begin, begin) + held
            end = begin
            *found, _ = held.split(b"\n")
            held = held[: len(found[0]) + 1] if begin else b""
            yield from reversed(found[1:] if begin else found)


def sync_folder(folder: Path) -> None:
    """Have the names of its files outlive a cut of the power."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
