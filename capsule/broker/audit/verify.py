"""Whether a trail is as it was written: each line has the hash of the one before, and anchors tell how far it went."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

from capsule.broker.audit import anchors
from capsule.broker.audit.files import lines, name, numbers
from capsule.broker.audit.keys import PUBLIC_FILE, public_key
from capsule.broker.audit.reading import no_trail
from capsule.broker.audit.record import GENESIS, digest, links
from capsule.broker.audit.tail import Tail
from capsule_protocol.errors import ArgumentError, StoreError

if TYPE_CHECKING:
    from pathlib import Path

ATTEMPTS = 10
"""Looks at a trail whose oldest files were removed by its node while they were looked at."""
MAX_FINDINGS = 100
"""Of a trail that is damaged all over the first ones are told."""


class Finding(NamedTuple):
    """Something about a trail. An `error`: it is not as it was written. `place` is a file, and the line in it."""

    severity: Literal["error", "warning"]
    place: str
    message: str


@dataclass
class Report:
    """What was found. `signed`: up to this record nothing can have been changed without the key."""

    files: int = 0
    records: int = 0
    first: int = 0
    last: int = 0
    signed: int = 0
    closed: bool = False
    key: str = ""
    findings: list[Finding] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        """Whether it is as it was written."""
        return not any(finding.severity == "error" for finding in self.findings)


def verify(folder: Path, key: bytes | None = None) -> Report:
    """Look at all of a trail; a node may write it meanwhile. Raises StoreError if it cannot be read.

    `key`: the public key that it must be signed with. Without one, that of the directory, which whoever can write there
    may have put in its place.
    """
    try:
        if folder.is_dir() and key is None and not (folder / PUBLIC_FILE).exists():
            raise no_trail(folder)
        return _looked_at(folder, key or public_key((folder / PUBLIC_FILE).read_text("ascii")))
    except (OSError, UnicodeDecodeError, ArgumentError) as error:
        words = getattr(error, "strerror", None) or error
        raise StoreError("store_refused", f"{folder} cannot be read as an audit trail: {words}") from error


def _looked_at(folder: Path, key: bytes) -> Report:
    """What is found when its node removes no file meanwhile, which would look like damage."""
    known: anchors.Known = {}
    for attempt in range(1, ATTEMPTS + 1):
        check = _Check(folder, key, known)
        try:
            report = check.run()
        except FileNotFoundError:
            if attempt == ATTEMPTS or not check.has_moved():
                raise
        else:
            if report.whole or not check.has_moved():
                break
    return report


class _Check:
    """One look at a trail, from its first line on."""

    def __init__(self, folder: Path, key: bytes, known: anchors.Known) -> None:
        self._folder, self._key, self._known = folder, key, known
        found = self._read()  # before the records: a node that writes meanwhile goes on from there
        self._anchors = {anchor.sequence: anchor for anchor in found.anchors}
        self._last = found.last
        self._first = found.last and found.last.first
        self._tail = Tail(found.last) if found.last else None
        self._excess = ""
        self._seen: set[int] = set()
        self._sequence, self._before = 0, ""
        self.report = Report(key=key.hex())
        if found.foreign:
            self._tell("anchors", f"{found.foreign} anchors are not signed with the key")

    def run(self) -> Report:
        files = numbers(self._folder)
        self._begin(files)
        for before, number in zip([None, *files], files, strict=False):
            if before is not None and number != before + 1:
                self._tell(name(number), f"there is no {name(before + 1)} before it")
            self._file(number)
        self.report.files = len(files)
        self._end()
        return self.report

    def has_moved(self) -> bool:
        """Whether the trail begins elsewhere by now."""
        last = self._read().last
        return (last and last.first) != self._first

    def _read(self) -> anchors.Found:
        return anchors.read(self._folder, self._key, self._known)

    def _tell(self, place: str, message: str, *, error: bool = True) -> None:
        if len(self.report.findings) < MAX_FINDINGS:
            self.report.findings.append(Finding("error" if error else "warning", place, message))

    def _begin(self, files: list[int]) -> None:
        """What comes before the first line, by what was signed of it last."""
        first = self._last.first if self._last else None
        if first is None:
            self._tell("anchors", "nothing is signed with the key")
            return
        while files and files[0] < first.file:
            left = files.pop(0)
            self._tell(name(left), "was to be removed, and is not looked at", error=False)
        if (files or [0])[0] != first.file and (files or first.sequence > 1 or self._last_sequence()):
            self._tell(name(first.file), "is missing: it was signed that the trail begins there")
        self._sequence, self._before = first.sequence - 1, first.previous

    def _last_sequence(self) -> int:
        return self._last.sequence if self._last else 0

    def _file(self, number: int) -> None:
        place = name(number)
        path = self._folder / place
        read = 0
        for at, line in enumerate(lines(path), 1):
            read += len(line) + 1
            self._line(f"{place}:{at}", line)
        if path.stat().st_size > read:
            self._tell(place, "ends with half a line: its node died while it wrote, or writes now", error=False)

    def _line(self, place: str, line: bytes) -> None:
        found, own = links(line), digest(line)
        self.report.records += 1
        if found is None:
            self._tell(place, "is no record")
            self._sequence, self._before = self._sequence + 1, own
            return
        sequence, previous = found
        if self._before and previous != self._before:
            self._tell(place, "does not fit to the line before it: one of them was changed, removed or moved")
        if self._sequence and sequence != self._sequence + 1:
            self._tell(place, f"has number {sequence}, after {self._sequence}")
        anchor = self._anchors.get(sequence)
        if anchor is not None:
            self._seen.add(sequence)
            if anchor.hash != own:
                self._tell(place, "is not the record that was signed")
        self.report.first = self.report.first or sequence
        self._sequence, self._before = sequence, own
        self._add_to_tail(sequence, line)

    def _add_to_tail(self, sequence: int, line: bytes) -> None:
        tail = self._tail
        if tail is None or self._excess or sequence <= tail.anchor.sequence:
            return
        tail.add(sequence, line)
        excess = tail.excess()
        if excess and not self._signed_meanwhile(tail):
            self._excess = excess
            self._tell("the end", excess)

    def _signed_meanwhile(self, tail: Tail) -> bool:
        """Whether the node has signed more by now, as it has before it wrote so much; it is looked at, then."""
        found = self._read()
        if found.last is None or found.last.sequence <= tail.anchor.sequence:
            return False
        hashes = tail.hashes()
        for anchor in found.anchors:
            if anchor.sequence in hashes:
                self._seen.add(anchor.sequence)
                if hashes[anchor.sequence] != anchor.hash:
                    self._tell("the end", f"record {anchor.sequence} is not the one that was signed")
        self._anchors.update((anchor.sequence, anchor) for anchor in found.anchors)
        self._last = found.last
        self._tail = tail.behind(found.last)
        return not self._tail.excess()

    def _end(self) -> None:
        report, last = self.report, self._last
        report.last = self._sequence
        if last is None:
            return
        report.signed = min(last.sequence, report.last)
        report.closed = last.closed and last.sequence == report.last
        if last.sequence > report.last:
            self._tell("the end", f"it was signed up to record {last.sequence}, and ends with {report.last}")
        begin = max(last.first.sequence, 1)
        missing = sorted(number for number in self._anchors if number >= begin and number not in self._seen)
        for number in missing:
            if number <= report.last:
                self._tell("anchors", f"record {number}, which was signed, is missing")
        if report.last > last.sequence:
            message = (
                f"the {report.last - last.sequence} newest records are not signed yet: its node runs, or was killed"
            )
            self._tell("the end", message, error=False)
        if last.sequence == 0 and last.hash != GENESIS:
            self._tell("anchors", "the beginning is not the one that was signed")
