"""Reading the records of a trail, all of them or those that are asked for."""

from __future__ import annotations

import time
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from capsule.broker.audit.files import backwards, lines, name, numbers
from capsule.broker.audit.keys import PUBLIC_FILE
from capsule.broker.audit.record import decode
from capsule_protocol.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from capsule.broker.audit.record import Entry


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which records are asked for. Texts may be globs; what is None does not matter."""

    kind: str | None = None
    principal: str | None = None
    session: str | None = None
    capability: str | None = None
    outcome: str | None = None
    code: str | None = None
    grant: str | None = None
    since: float | None = None
    until: float | None = None

    def fits(self, entry: Entry) -> bool:
        """Whether this is one of them. A session is named by its id or its name."""
        record = entry.record
        if (self.since is not None and record.time < self.since) or (
            self.until is not None and record.time >= self.until
        ):
            return False
        wanted = ("kind", "principal", "capability", "outcome", "code", "grant")
        if not all(_fits(getattr(self, field), getattr(record, field)) for field in wanted):
            return False
        return _fits(self.session, record.session) or _fits(self.session, record.session_name)


class Damage:
    """How many lines were left out, since they are no records: `verify` tells where."""

    lines = 0


def entries(folder: Path, wanted: Wanted | None = None, damage: Damage | None = None) -> Iterator[Entry]:
    """The records from the oldest on. Raises StoreError, also for a directory that has no trail."""
    try:
        for number in _numbers(folder):
            yield from _decoded(lines(folder / name(number)), wanted or Wanted(), damage)
    except OSError as error:
        raise _unreadable(folder, error) from error


def newest(folder: Path, count: int, wanted: Wanted | None = None, damage: Damage | None = None) -> list[Entry]:
    """The newest records that are asked for, in order. Raises as `entries` does."""
    found: list[Entry] = []
    try:
        for number in reversed(_numbers(folder)):
            for entry in _decoded(backwards(folder / name(number)), wanted or Wanted(), damage):
                if len(found) == count:
                    return found[::-1]
                found.append(entry)
    except OSError as error:
        raise _unreadable(folder, error) from error
    return found[::-1]


def since(folder: Path, sequence: int) -> list[Entry]:
    """The records after this one."""
    found: list[Entry] = []
    try:
        for number in reversed(numbers(folder)):
            for entry in _decoded(backwards(folder / name(number)), Wanted()):
                if entry.sequence <= sequence:
                    return found[::-1]
                found.append(entry)
    except OSError as error:
        raise _unreadable(folder, error) from error
    return found[::-1]


def _numbers(folder: Path) -> list[int]:
    """The files of a trail. One that was only begun has none; where there is no key either, there is no trail."""
    found = numbers(folder)
    if not found and not (folder / PUBLIC_FILE).exists():
        raise no_trail(folder)
    return found


def _decoded(found: Iterator[bytes], wanted: Wanted, damage: Damage | None = None) -> Iterator[Entry]:
    for line in found:
        try:
            entry = decode(line)
            fits = wanted.fits(entry)
        except (ValueError, TypeError, RecursionError):
            if damage is not None:
                damage.lines += 1
            continue
        if fits:
            yield entry


def _fits(pattern: str | None, value: str) -> bool:
    return pattern is None or fnmatchcase(value, pattern)


def _unreadable(folder: Path, error: OSError) -> StoreError:
    return StoreError("store_refused", f"{folder} cannot be read as an audit trail: {error.strerror}")


def no_trail(folder: Path) -> StoreError:
    """The error of a directory in which no node has written."""
    hint = "Name the one that `audit` in [broker] of the configuration names."
    text = f"{folder} cannot be read as an audit trail: there is no {PUBLIC_FILE} in it"
    return StoreError("store_refused", text, hint=hint)


def moment(entry: Entry) -> str:
    """When it was, as people read it."""
    whole, part = divmod(entry.record.time, 1)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole))}.{int(part * 1000):03d}Z"
