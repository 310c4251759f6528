"""The tail of a trail: the records behind the last anchor. Who has no key can make such records too, so it is bounded.

A node writes no record before it has signed those that make the tail as long as it may be. So one that is far longer
was not left by a node that died, and is not taken over.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from capsule.broker.audit.record import decode, digest

if TYPE_CHECKING:
    from capsule.broker.audit.anchors import Anchor

ANCHOR_SECONDS = 5.0
"""So long may a record be without a signature, while the node runs."""
UNSYNCED = 256
"""Records that may wait for one sync, beyond those that need no anchor yet: as many calls has a session at once."""
MAX_SECONDS = 60.0
"""From the first record of a tail to its last, without those that the trail says of itself: a node that starts writes
such ones, whenever that is, and may die before it has signed them. A node signs more often by far; but a cut of the
power may take anchors that the system had not written for half a minute, and not the records."""
FACTOR, NOTES = 2, 8
"""A tail may have so many times the records that its anchor allows: of those of a round of syncs the anchor may be
lost. And some of what the trail says of itself at a start."""


class _One(NamedTuple):
    sequence: int
    hash: str
    time: float
    own: bool
    """Whether the trail says it of itself."""


class Tail:
    """Behind this anchor. Records are added in any order."""

    def __init__(self, anchor: Anchor) -> None:
        self.anchor = anchor
        self._found: list[_One] = []
        self._first, self._last = math.inf, -math.inf
        self._others = 0
        self._odd = False

    def __len__(self) -> int:
        return len(self._found)

    @property
    def seconds(self) -> float:
        """From the first to the last, by what they say themselves."""
        times = [one.time for one in self._found]
        return max(times) - min(times) if times else 0.0

    def add(self, sequence: int, line: bytes) -> None:
        """One more of its records."""
        self._add(_read(sequence, line))

    def excess(self) -> str:
        """Why no node can have left it so; an empty text if one can."""
        anchor = self.anchor
        if self._odd:
            return f"behind record {anchor.sequence} is a record without a time, as no node writes one"
        if anchor.closed and self._others:
            return f"it was closed after record {anchor.sequence}, and goes on without a signature"
        if len(self._found) > FACTOR * anchor.unsigned + NOTES:
            return f"more records behind record {anchor.sequence} are not signed than a node leaves"
        if self._last - self._first > MAX_SECONDS:  # of none it is -inf
            return f"the records behind record {anchor.sequence} are of a longer time than a node leaves unsigned"
        return ""

    def behind(self, anchor: Anchor) -> Tail:
        """What of it is the tail behind a later anchor."""
        rest = Tail(anchor)
        for one in self._found:
            if one.sequence > anchor.sequence:
                rest._add(one)
        return rest

    def hashes(self) -> dict[int, str]:
        """The hash of the line of each record, by its number."""
        return {one.sequence: one.hash for one in self._found}

    def _add(self, one: _One) -> None:
        self._found.append(one)
        self._odd |= math.isnan(one.time)
        if not one.own:
            self._first, self._last = min(self._first, one.time), max(self._last, one.time)
            self._others += 1


def _read(sequence: int, line: bytes) -> _One:
    try:
        record = decode(line).record
        time = float(record.time)
        own = record.kind == "audit"
    except (ValueError, TypeError, OverflowError, RecursionError):
        time, own = math.nan, False
    return _One(sequence, digest(line), time if math.isfinite(time) else math.nan, own)
