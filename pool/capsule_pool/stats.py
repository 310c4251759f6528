"""What a pool counts, and how others hear of it: one event for each thing that happens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Literal

EventKind = Literal[
    "waiting",
    "acquired",
    "left",
    "refused",
    "attempt",
    "created",
    "failed",
    "evicted",
    "died",
    "released",
    "gone",
    "breaker",
]

ACQUIRES: Final = "acquires"
HITS: Final = "hits"
MISSES: Final = "misses"
WAIT_SECONDS: Final = "wait_seconds"
WAITS: Final = "waits"
LEFT: Final = "left"
REFUSED: Final = "refused"
ATTEMPTS: Final = "attempts"
CREATED: Final = "created"
CREATION_SECONDS: Final = "creation_seconds"
FAILURES: Final = "failures"
RELEASED: Final = "released"
GONE: Final = "gone"
COUNTERS: Final = (ACQUIRES, HITS, MISSES, WAITS, LEFT, REFUSED, ATTEMPTS, CREATED, FAILURES, RELEASED, GONE)
"""Those that are whole numbers; `wait_seconds` and `creation_seconds` are sums of seconds."""


@dataclass(frozen=True, slots=True)
class PoolEvent:
    """One thing that happened in a pool.

    `cause` is "hit" or "miss" of an acquire, why a member was evicted or died, the error that refused or failed, or
    the breaker's new state. `seconds` is how long an acquire waited or a creation took.
    """

    pool: str
    kind: EventKind
    cause: str = ""
    seconds: float = 0.0


OnEvent = Callable[[PoolEvent], None]


@dataclass(frozen=True, slots=True)
class StatsInfo:
    """The counts at one moment. `efficiency` is members handed out ÷ members made."""

    counts: dict[str, float]
    evictions: dict[str, int]
    deaths: dict[str, int]
    efficiency: float
    hit_rate: float


@dataclass(slots=True)
class Stats:
    """Counts events."""

    counts: Counter[str] = field(default_factory=Counter)
    seconds: dict[str, float] = field(default_factory=lambda: {WAIT_SECONDS: 0.0, CREATION_SECONDS: 0.0})
    evictions: Counter[str] = field(default_factory=Counter)
    deaths: Counter[str] = field(default_factory=Counter)

    def count(self, event: PoolEvent) -> None:
        """Count one."""
        match event.kind:
            case "acquired":
                self.counts[ACQUIRES] += 1
                self.counts[HITS if event.cause == "hit" else MISSES] += 1
                self.seconds[WAIT_SECONDS] += event.seconds
            case "waiting":
                self.counts[WAITS] += 1
            case "created":
                self.counts[CREATED] += 1
                self.seconds[CREATION_SECONDS] += event.seconds
            case "attempt":
                self.counts[ATTEMPTS] += 1
            case "failed":
                self.counts[FAILURES] += 1
            case "evicted":
                self.evictions[event.cause] += 1
            case "died":
                self.deaths[event.cause] += 1
            case "left" | "refused" | "released" | "gone":
                self.counts[event.kind] += 1
            case "breaker":
                pass  # a state, not a count

    def info(self) -> StatsInfo:
        """The counts as they are now."""
        made, asked = self.counts[CREATED], self.counts[ACQUIRES]
        return StatsInfo(
            counts={key: self.counts[key] for key in COUNTERS} | self.seconds,
            evictions=dict(self.evictions),
            deaths=dict(self.deaths),
            efficiency=asked / made if made else 1.0,
            hit_rate=self.counts[HITS] / asked if asked else 1.0,
        )
