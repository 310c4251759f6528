"""What a bridge counts: promises by what became of them, requests that were repeated, and how long commits take."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from capsule_bridge.records import Created, Promise

SAMPLES = 1_000
"""Commits whose times are remembered."""


@dataclass(frozen=True, slots=True)
class BridgeInfo:
    """A bridge as it is now. Times are seconds; `verdicts` by state; `oldest` is the age of the oldest pending promise.

    `pending` and `high_water` count what this node has accepted or taken over and what has no verdict yet. Interceptors
    that are `quarantined` are not called any more.
    """

    pending: int
    high_water: int
    oldest: float
    accepted: int
    verdicts: dict[str, int]
    events: int
    dedup_hits: int
    conflicts: int
    commit_p50: float
    commit_p99: float
    quarantined: tuple[str, ...] = ()


class Stats:
    """The counters. They are of this node's life, not of the store's."""

    def __init__(self) -> None:
        self.events = 0
        self.high_water = 0
        self.fresh = 0
        self.dedup_hits = 0
        self.conflicts = 0
        self.verdicts: Counter[str] = Counter()
        self._pending: dict[str, int] = {}
        self._children: dict[str, list[str]] = {}
        self._times: deque[float] = deque(maxlen=SAMPLES)

    def accepted(self, created: Created) -> None:
        """A promise was made, or found."""
        if created.fresh:
            self.fresh += 1
            self.took_over(created.promise)
        else:
            self.dedup_hits += 1

    def took_over(self, promise: Promise) -> None:
        """A pending promise is this node's, which it has made or found in its store."""
        if promise.pending:
            self._pending[promise.id] = promise.created_at
            if promise.parent is not None:
                self._children.setdefault(promise.parent, []).append(promise.id)
            self.high_water = max(self.high_water, len(self._pending))

    def refused(self, code: str) -> None:
        """A promise was not made."""
        self.conflicts += code == "idempotency_conflict"

    def awaits(self, id_: str) -> bool:
        """Whether a promise of this node has no verdict yet, as far as is counted."""
        return id_ in self._pending

    def settled(self, promise: Promise) -> None:
        """A verdict was given. Those of children that ended with it are counted with it."""
        self.verdicts[promise.state] += 1
        self._gone(promise.id)

    def timed_out(self, id_: str) -> None:
        """A time-out was written down."""
        self.verdicts["rejected_timedout"] += 1
        self._gone(id_)

    def took(self, seconds: float) -> None:
        """So long a caller waited for a commit."""
        self._times.append(seconds)

    def _gone(self, id_: str) -> None:
        self._pending.pop(id_, None)
        for child in self._children.pop(id_, ()):
            self._gone(child)

    def info(self, now: int, quarantined: tuple[str, ...] = ()) -> BridgeInfo:
        """All of it, at a time in milliseconds."""
        times = sorted(self._times)
        oldest = next(iter(self._pending.values()), now)
        return BridgeInfo(
            pending=len(self._pending),
            high_water=self.high_water,
            oldest=max(0, now - oldest) / 1000,
            accepted=self.fresh,
            verdicts=dict(self.verdicts),
            events=self.events,
            dedup_hits=self.dedup_hits,
            conflicts=self.conflicts,
            commit_p50=median(times) if times else 0.0,
            commit_p99=times[len(times) * 99 // 100] if times else 0.0,
            quarantined=quarantined,
        )
