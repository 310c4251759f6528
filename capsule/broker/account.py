"""What one session has used: calls a second, calls at once, bytes in all, faults; and what was approved for it."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from capsule.broker.budget import Budget
from capsule_protocol.errors import CapabilityDenied, CapabilityFailed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from capsule.broker.budget import Step
    from capsule.broker.grants import Grant
    from capsule.broker.packs import BudgetSettings
    from capsule.broker.sdk import Limits


class Bucket:
    """Calls a second, on average; as many at once when there have been none for a while. Pure: time is passed in."""

    def __init__(self, rate: float, now: float) -> None:
        self._rate = rate
        self._tokens = max(1.0, rate)
        self._at = now

    def take(self, now: float) -> float:
        """0.0 if there may be one more now, else the seconds until there may."""
        self._tokens = min(max(1.0, self._rate), self._tokens + (now - self._at) * self._rate)
        self._at = now
        if self._tokens >= 1:
            self._tokens -= 1
            return 0.0
        return (1 - self._tokens) / self._rate


class Account:
    """That of one session. A key is a grant and an operation; bounds follow the grant that is in force."""

    def __init__(self) -> None:
        self._buckets: dict[tuple[str, str], tuple[float, Bucket]] = {}
        self._rooms: dict[tuple[str, str], tuple[int, asyncio.Semaphore]] = {}
        self._bytes: defaultdict[str, int] = defaultdict(int)
        self._budgets: dict[str, tuple[BudgetSettings, Budget]] = {}
        self._steps: list[Step] = []
        self._approved: dict[str, Grant] = {}

    def approve(self, grant: Grant) -> None:
        """Somebody has approved all that the session calls under this grant, as it is."""
        self._approved[grant.name] = grant

    def approved(self, grant: Grant, capability: str) -> bool:
        """Whether somebody has: under a grant of this name with the same scope, which covered the capability then."""
        before = self._approved.get(grant.name)
        return before is not None and before.scope == grant.scope and capability in before.capabilities

    def check_rate(self, key: tuple[str, str], limits: Limits, now: float) -> None:
        """Raises CapabilityDenied `capability_throttled`."""
        rate = limits.per_second
        if rate is None:
            return
        if key not in self._buckets or self._buckets[key][0] != rate:
            self._buckets[key] = (rate, Bucket(rate, now))
        wait = self._buckets[key][1].take(now)
        if wait:
            message = f"{key[1]} may be called {rate:g} times a second; the next time in {wait:.3g} s"
            raise CapabilityDenied("capability_throttled", message, details={"retry_after": wait})

    @asynccontextmanager
    async def room(self, key: tuple[str, str], limits: Limits) -> AsyncIterator[None]:
        """Among those at once: in turn, for as long as the call may take. Raises CapabilityDenied `capability_busy`."""
        most = limits.concurrent
        if most is None:
            yield
            return
        if key not in self._rooms or self._rooms[key][0] != most:
            self._rooms[key] = (most, asyncio.Semaphore(most))
        room = self._rooms[key][1]
        try:
            async with asyncio.timeout(limits.timeout):
                await room.acquire()
        except TimeoutError:
            message = f"{most} calls of {key[1]} are under way, and none ended within {limits.timeout:g} s"
            raise CapabilityDenied("capability_busy", message, details={"concurrent": most}) from None
        try:
            yield
        finally:
            room.release()

    def carry(self, grant: str, limits: Limits, size: int) -> None:
        """So many bytes more of a body. Raises CapabilityFailed `capability_too_large`."""
        self._bytes[grant] += size
        most = limits.total_bytes
        if most is not None and self._bytes[grant] > most:
            message = f"the session has carried more than total_bytes={most} under the grant {grant!r}"
            raise CapabilityFailed("capability_too_large", message, details={"limit": "total_bytes", "allowed": most})

    def budget(self, provider: str, settings: BudgetSettings) -> Budget:
        """The faults of one provider's calls."""
        known = self._budgets.get(provider)
        if known is None:
            known = self._budgets[provider] = (settings, Budget(settings, self._steps.append))
        elif known[0] is not settings and known[0] != settings:  # mostly it is; to compare costs microseconds
            known[1].configure(settings)
            self._budgets[provider] = (settings, known[1])
        return known[1]

    def steps(self) -> list[Step]:
        """What has become of the budgets since this was last asked."""
        steps, self._steps[:] = list(self._steps), []
        return steps
