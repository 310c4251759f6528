"""What can be configured of a pool and of its breaker: plain values, checked by whoever reads them from a file."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Priority = Literal["interactive", "batch"]
"""Interactive waiters come first; batch waiters get every fifth member all the same."""


@dataclass(frozen=True, slots=True)
class BreakerConfig:
    """`failures` within `window` seconds open the breaker; pauses double from `pause` up to `longest_pause`."""

    failures: int = 5
    window: float = 30.0
    pause: float = 0.5
    longest_pause: float = 30.0


@dataclass(frozen=True, slots=True)
class PoolConfig:
    """The sizes, times (in seconds) and budgets of a pool; None is no bound.

    `idle_ttl` is for the idle members beyond `min_idle`; `max_age` replaces any idle member. `idle_bytes` bounds all
    idle members together, `member_bytes` each when it is made. `refill_delay` is how long after an acquire the pool
    waits before it makes members for later.
    """

    min_idle: int = 1
    max_sessions: int = 1000
    max_starting: int = 4
    max_waiting: int = 10_000
    idle_ttl: float = 60.0
    max_age: float | None = None
    acquire_timeout: float | None = None
    create_timeout: float = 60.0
    idle_bytes: int | None = None
    member_bytes: int | None = None
    refill_delay: float = 0.01
    breaker: BreakerConfig = field(default_factory=BreakerConfig)
