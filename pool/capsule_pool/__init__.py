"""The pool of warm sessions: members made ahead, handed out once, and a circuit breaker around the making."""

from __future__ import annotations

from capsule_pool.breaker import BreakerInfo
from capsule_pool.config import BreakerConfig, PoolConfig, Priority
from capsule_pool.info import PoolInfo
from capsule_pool.members import Factory, Member
from capsule_pool.pool import Pool
from capsule_pool.stats import OnEvent, PoolEvent, StatsInfo

__all__ = [
    "BreakerConfig",
    "BreakerInfo",
    "Factory",
    "Member",
    "OnEvent",
    "Pool",
    "PoolConfig",
    "PoolEvent",
    "PoolInfo",
    "Priority",
    "StatsInfo",
]
