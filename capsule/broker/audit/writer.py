"""Writing the trail: lines, files in turn, and anchors. Nothing here waits, and nothing is decided when it fails."""

from __future__ import annotations

import os
import time
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from capsule.broker.audit import anchors
from capsule.broker.audit.files import Appending, name, sync_folder
from capsule.broker.audit.record import digest, encode, links
from capsule.broker.audit.tail import ANCHOR_SECONDS, UNSYNCED

if TYPE_CHECKING:
    from pathlib import Path

    from nacl.signing import SigningKey

    from capsule.broker.audit.record import Record
    from capsule.broker.packs import AuditSettings


class Mark(NamedTuple):
    """How far the trail goes: its last record, and the hash of its line."""

    sequence: int
    head: str


class Start(NamedTuple):
    """Where writing begins: after `mark`, in the file `number`; `kept` are the files before it, from the oldest on."""

    mark: Mark
    number: int
    kept: tuple[int, ...]
    first: anchors.First
    anchors: int


class Writer:
    """The files of a trail that goes on at `start`."""

    def __init__(self, folder: Path, settings: AuditSettings, key: SigningKey, start: Start) -> None:
        self.folder, self.settings = folder, settings
        self.mark = start.mark
        self.signed = 0
        """The record up to which it is signed."""
        self._tail: deque[tuple[int, float]] = deque()
        """Number and time of the records that are not."""
        self._allowed = self._may_be_unsigned()
        self._key, self._first = key, start.first
        self._number, self._kept = start.number, [*start.kept]
        self._data = Appending(folder / name(start.number))
        self._data.unsynced = True  # a line that was cut off
        self._which = start.anchors
        try:
            self._anchors = Appending(folder / anchors.FILES[self._which])
            self._anchors.cut()
        except OSError:
            self._data.close()
            raise
        self._full: list[Appending] = []
        self._expired: list[int] = []

    def append(self, *records: Record) -> None:
        """Write records, all or none. Raises OSError, and has then written nothing."""
        mark, lines, times = self.mark, [], []
        for record in records:
            if not record.time:
                record = record._replace(time=time.time())  # noqa: PLW2901 - the same, with the time that it is given
            line = encode(record, mark.sequence + 1, mark.head)
            mark = Mark(mark.sequence + 1, digest(line))
            lines.append(line)
            times.append((mark.sequence, record.time))
        text = b"\n".join(lines)
        if self._data.size and self._data.size + len(text) >= self.settings.file_bytes:
            self._rotate()
        self._data.write(text)
        self.mark = mark
        self._tail += times

    def sign(self, mark: Mark, *, closed: bool = False) -> None:
        """Write an anchor for what goes up to this mark. Raises OSError."""
        unsigned = self._may_be_unsigned()
        anchor = anchors.make(mark.sequence, mark.head, self._first, unsigned, closed=closed)
        line = anchors.encode(anchor, self._key)
        if self._anchors.size + len(line) > anchors.MAX_FILE:
            self._which = 1 - self._which
            other = Appending(self.folder / anchors.FILES[self._which], anew=True)
            self._full.append(self._anchors)
            self._anchors = other
        self._anchors.write(line)
        self.signed = mark.sequence
        self._allowed = unsigned
        while self._tail and self._tail[0][0] <= mark.sequence:
            self._tail.popleft()

    def crowded(self, now: float) -> bool:
        """Whether a record of this time must wait for an anchor."""
        tail = self._tail
        full = bool(tail) and (len(tail) >= self._allowed or abs(now - tail[0][1]) > ANCHOR_SECONDS)
        return full and self.can_sign(self.mark)

    def due(self, mark: Mark) -> bool:
        """Whether enough has been written since the last anchor, or files wait for one to be removed."""
        return self.can_sign(mark) and (
            mark.sequence - self.signed >= self.settings.anchor_every or bool(self._expired)
        )

    def can_sign(self, mark: Mark) -> bool:
        """Whether there is something up to this mark that has not been signed."""
        return mark.sequence >= self._first.sequence and mark.sequence > self.signed

    def unsynced(self) -> list[Appending]:
        """All files that have something to be synced."""
        return [file for file in (*self._full, self._data, self._anchors) if file.unsynced]

    def release(self) -> None:
        """Let full files go, and remove those that are kept no longer. Not while one of them is being synced."""
        while self._full:
            self._full.pop().close()
        while self._expired and self.signed >= 0:
            (self.folder / name(self._expired[0])).unlink(missing_ok=True)
            self._expired.pop(0)

    def close(self) -> None:
        """Let all files go. Idempotent."""
        for file in (*self._full, self._data, self._anchors):
            file.close()

    def _may_be_unsigned(self) -> int:
        """Records that the next anchor allows behind it."""
        return self.settings.anchor_every + (UNSYNCED if self.settings.level == "power" else 0)

    def _rotate(self) -> None:
        """Go on in a new file. Of the old ones so many are kept as the settings say."""
        new = Appending(self.folder / name(self._number + 1))
        self._full.append(self._data)
        self._kept.append(self._number)
        self._data, self._number = new, self._number + 1
        excess = len(self._kept) + 1 - self.settings.keep_files
        if excess > 0:
            self._expire(excess)

    def _expire(self, count: int) -> None:
        """Have the oldest files go. Where the trail then begins is signed before they do."""
        rest = [*self._kept[count:], self._number]
        begin = self._beginning(rest[0])
        if begin is None:  # it cannot be read: nothing is removed, and `verify` tells what is wrong with it
            return
        self._first = begin
        self.signed = -1
        self._expired += self._kept[:count]
        self._kept = self._kept[count:]

    def _beginning(self, number: int) -> anchors.First | None:
        if number == self._number:  # just begun
            return anchors.First(number, self.mark.sequence + 1, self.mark.head)
        try:
            with (self.folder / name(number)).open("rb") as file:
                found = links(file.readline().removesuffix(b"\n"))
        except OSError:
            return None
        return found and anchors.First(number, *found)


def sync(files: list[Appending]) -> None:
    """Have what was written outlive a cut of the power. Raises OSError."""
    for file in files:
        os.fdatasync(file.descriptor)
    for folder in {file.path.parent for file in files if file.fresh}:
        sync_folder(folder)
