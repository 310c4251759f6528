"""Going on with a trail: what a node that died left of it is looked at, and what is wrong with it becomes a record."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from capsule.broker.audit import anchors
from capsule.broker.audit.files import Appending, backwards, name, numbers
from capsule.broker.audit.record import GENESIS, Record, digest, links
from capsule.broker.audit.tail import Tail
from capsule.broker.audit.writer import Mark, Start

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from nacl.signing import SigningKey


def recover(folder: Path, key: SigningKey) -> tuple[Start, list[Record]]:
    """Where to go on, and what the trail has to say of it first.

    A half line at the end is cut off. Where the trail is not as it was signed, it goes on in a new file, with a number
    of a record that shows the gap: so what is wrong with the old ones stays to be seen.
    """
    found = anchors.read(folder, key.verify_key.encode())
    files = _without_expired(folder, numbers(folder), found.last)
    cut = _cut(folder, files)
    notes = [_note("cut", bytes=cut)] if cut else []
    mark = _end(folder, files)
    tail = Tail(found.last) if found.last else None
    damage = _damage(folder, files, mark, found, tail)
    number = files[-1] if files else 1
    if damage:
        last = found.last.sequence if found.last else 0
        mark = Mark(max(last, mark.sequence if mark else 0) + 1, mark.head if mark else GENESIS)
        number = max(number, found.last.first.file if found.last else 0) + 1
        notes.append(_note("damaged", "audit_damaged", why=damage))
    mark = mark or Mark(0, GENESIS)
    first = found.last.first if found.last else anchors.First(files[0] if files else number, 1, GENESIS)
    kept = tuple(one for one in files if one != number)
    return Start(mark, number, kept, first, found.newest), [*notes, _note("opened", **_adopted(tail, damage))]


def _note(outcome: str, code: str = "", why: str = "", **details: Any) -> Record:
    return Record("audit", outcome, code, why=why, details=details or None)


def _adopted(tail: Tail | None, damage: str) -> dict[str, Any]:
    """How many records nothing vouched for, and of what time: whoever could write the directory may have made them."""
    if not tail or damage:
        return {}
    return {"adopted": {"records": len(tail), "seconds": round(tail.seconds, 6)}}


def _without_expired(folder: Path, files: list[int], last: anchors.Anchor | None) -> list[int]:
    """The files that are kept; a node that died while it removed others had signed where the trail begins."""
    begin = last.first.file if last else 0
    for number in files:
        if number < begin:
            (folder / name(number)).unlink()
    return [number for number in files if number >= begin]


def _cut(folder: Path, files: list[int]) -> int:
    if not files:
        return 0
    file = Appending(folder / name(files[-1]))
    try:
        return file.cut()
    finally:
        file.close()


def _end(folder: Path, files: list[int]) -> Mark | None:
    """The last line of all, if it is one of ours."""
    for number in reversed(files):
        for line in backwards(folder / name(number)):
            found = links(line)
            return Mark(found[0] if found else 0, digest(line))
    return None


def _damage(folder: Path, files: list[int], mark: Mark | None, found: anchors.Found, tail: Tail | None) -> str:
    """What is wrong with the end of the trail, from the last anchor on; what is behind that one is put into `tail`."""
    last = found.last
    if last is None or tail is None:
        return "nothing of the trail is signed with the key of this node" if mark or found.foreign else ""
    if (mark.sequence if mark else 0) < last.sequence:
        return f"it was signed up to record {last.sequence}, and ends with {mark.sequence if mark else 0}"
    sequence, before = (mark.sequence + 1, mark.head) if mark else (1, GENESIS)
    for line in _back(folder, files):
        if sequence - 1 == last.sequence:
            break
        found_ = links(line)
        if found_ is None or found_[0] + 1 != sequence or digest(line) != before:
            return f"record {sequence - 1} is not as it was written"
        tail.add(found_[0], line)
        sequence, before = found_
    fits = (sequence - 1, before) == (last.sequence, last.hash)
    return tail.excess() if fits else f"record {last.sequence} is not as signed"


def _back(folder: Path, files: list[int]) -> Iterator[bytes]:
    """The lines from the last one back."""
    for number in reversed(files):
        yield from backwards(folder / name(number))
