"""What a pool says to whoever cannot have a session now."""

from __future__ import annotations

from typing import TYPE_CHECKING

from capsule_protocol.errors import PoolError

if TYPE_CHECKING:
    from capsule_pool.breaker import BreakerInfo


def closed(name: str) -> PoolError:
    """There is no pool any more."""
    return PoolError("pool_closed", f"the pool {name!r} has been closed")


def crowded(name: str, max_waiting: int) -> PoolError:
    """As many wait as may."""
    return PoolError("pool_exhausted", f"the pool {name!r} has max_waiting={max_waiting} waiters already")


def late(name: str, limit: float, waiting: int) -> PoolError:
    """Nothing came in time; so many still wait."""
    message = f"the pool {name!r} had no session within {limit:g} s"
    return PoolError("pool_timeout", message, details={"waiting": waiting})


def unavailable(name: str, breaker: BreakerInfo, cause: BaseException | None) -> PoolError:
    """The breaker lets nothing be made; the cause is the last failure, whose details are passed on."""
    error = PoolError(
        "pool_unavailable",
        f"the pool {name!r} makes no sessions now; it tries again in {breaker.next_attempt:.1f} s. "
        f"The last attempt failed: {breaker.cause}",
        details={**getattr(cause, "details", {}), "next_attempt": breaker.next_attempt, "cause": breaker.cause},
    )
    error.__cause__ = cause
    return error


def slow(limit: float) -> PoolError:
    """A member was not made in time, and the next one would most likely not be either."""
    message = f"a session was not ready within create_timeout={limit:g} s"
    return PoolError("pool_unavailable", message, retryable=False)


def too_large(held: int, allowed: int) -> PoolError:
    """A new member is over its budget, and the next one would most likely be so too."""
    message = f"a new session holds {held} bytes; member_bytes={allowed} is allowed"
    return PoolError("pool_unavailable", message, retryable=False)
