"""A pool at one moment, for programs and for people."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Self

from capsule_pool.breaker import BreakerInfo
from capsule_pool.stats import Stats, StatsInfo

if TYPE_CHECKING:
    from capsule_pool.config import PoolConfig


@dataclass(frozen=True, slots=True)
class PoolInfo:
    """Sizes, breaker and counts. `memory` is what the idle members hold, in bytes; 0 without `idle_bytes`.

    `unused`: nobody has asked for a member so far, and none was made.
    """

    name: str
    state: Literal["unused", "open", "closed"]
    idle: int
    starting: int
    in_use: int
    closing: int
    waiting: int
    min_idle: int
    max_sessions: int
    memory: int
    breaker: BreakerInfo
    stats: StatsInfo

    @classmethod
    def unused(cls, name: str, config: PoolConfig) -> Self:
        """Of a pool that is yet to be made."""
        return cls(
            name=name,
            state="unused",
            idle=0,
            starting=0,
            in_use=0,
            closing=0,
            waiting=0,
            min_idle=config.min_idle,
            max_sessions=config.max_sessions,
            memory=0,
            breaker=BreakerInfo("closed", 0, 0.0, ""),
            stats=Stats().info(),
        )


def line(info: PoolInfo) -> str:
    """One line of a dashboard."""
    parts = [
        f"{info.idle}/{info.min_idle} idle",
        f"{info.in_use}/{info.max_sessions} in use",
        f"{info.starting} starting",
        f"{info.waiting} waiting",
        f"hits {info.stats.hit_rate:.0%}",
    ]
    if info.closing:
        parts.append(f"{info.closing} closing")
    if info.breaker.state != "closed":
        parts.append(f"breaker {info.breaker.state}: {info.breaker.cause}")
    return f"<Pool {info.name} {info.state}: {', '.join(parts)}>"
