"""Reading a table of which something is damaged: what cannot be read is passed over, and told."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from capsule_bridge.telling import Record

ENDLESS = 2**63 - 1
"""Behind all numbers that a row can have."""
WIDEST = 2**32
"""Numbers in a range that is searched for what can be read; a number that makes it wider is damaged itself."""
STEP = 4_096
"""Numbers that are searched at once if nobody knows how many there are."""
_PASSING = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_INTERRUPT}


class Lost(NamedTuple):
    """Rows behind a number that cannot be read, up to another one, or nobody knows how many."""

    after: int
    upto: int | None


def readable(
    read: Callable[[int, int], Iterator[Record]],
    key: str,
    after: int,
    upto: int | None,
    last: Callable[[], int | None] | None,
) -> Iterator[Record | Lost]:
    """All rows in the range by their number `key`, and what is lost between them.

    `read` answers rows behind a number up to another one, in order; `last` the highest number, for a range without an
    end: if there is no `last`, nothing is searched for behind what cannot be read. A range that cannot be read is
    halved, until there is one number in it.
    """
    lost = None
    for found in _halving(read, key, after, upto, last):
        if isinstance(found, Lost):
            lost = Lost(lost.after if lost else found.after, found.upto)
            continue
        if lost:
            yield lost
            lost = None
        yield found
    if lost:
        yield lost


def _halving(
    read: Callable[[int, int], Iterator[Record]],
    key: str,
    after: int,
    upto: int | None,
    last: Callable[[], int | None] | None,
) -> Iterator[Record | Lost]:
    ranges, seen = [(after, upto)], True
    while ranges:
        after, upto = ranges.pop()
        try:
            for row in read(after, ENDLESS if upto is None else upto):
                after, seen = _next(row[key], after), True
                yield row
        except (sqlite3.DatabaseError, TypeError) as error:
            check_damage(error)
            if upto is None and last is not None and (upto := last()) is None and seen:
                # Where it ends cannot be read either: go on for as long as there is something.
                upto, seen = after + STEP, False
                ranges.append((upto, None))
            if upto is None or upto <= after:
                yield Lost(after, None)
            elif upto - after == 1 or upto - after > WIDEST:
                yield Lost(after, upto)
            else:
                middle = (after + upto) // 2
                ranges += [(middle, upto), (after, middle)]


def _next(number: int, after: int) -> int:
    if number <= after:
        raise sqlite3.DatabaseError(f"row {number} comes behind row {after}")
    return number


def check_damage(error: Exception) -> None:
    """Raises the error if it may pass: it tells of no damage."""
    if getattr(error, "sqlite_errorcode", 0) & 0xFF in _PASSING:
        raise error
