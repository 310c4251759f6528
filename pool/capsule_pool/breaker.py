"""The circuit breaker around the making of members, without a clock. Its transitions are the table `states.BREAKER`.

Enough failures within the window open it. Once the pause is over one attempt is let through, the probe: if it fails, a
longer pause begins. Any attempt that succeeds closes the breaker.

Every failure is followed by a pause. Its length is drawn evenly between nothing and a bound, which doubles with each
failure in a row ("full jitter"), so that pools which failed together do not try again together. In the pause a closed
breaker lets nothing be made for later, but does for those who wait; an open one lets nothing be made at all.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from capsule_pool.states import BREAKER, BreakerEvent, BreakerState

if TYPE_CHECKING:
    from collections.abc import Callable

    from capsule_pool.config import BreakerConfig


@dataclass(frozen=True, slots=True)
class BreakerInfo:
    """A breaker at one moment. `next_attempt` is in seconds from now; `cause` tells of the last failure."""

    state: BreakerState
    failures: int
    next_attempt: float
    cause: str


class Breaker:
    """Ask `may_start` or `may_refill`, tell `attempt`, and then `succeeded` or `failed` with what `attempt` answered.

    `random` gives numbers from 0 to 1; all methods take the time in seconds, which never goes back.
    """

    def __init__(self, config: BreakerConfig, random: Callable[[], float]) -> None:
        self.state: BreakerState = "closed"
        self.next_attempt = 0.0
        self.error: BaseException | None = None
        self.config = config
        self._random = random
        self._failures: deque[float] = deque()
        self._in_a_row = 0

    def may_start(self, now: float) -> bool:
        """Whether a member may be made for somebody who waits."""
        return self.state == "closed" or self._may_probe(now)

    def may_refill(self, now: float) -> bool:
        """Whether a member may be made for later."""
        return self.state != "half_open" and now >= self.next_attempt

    def attempt(self, now: float) -> bool:
        """A member is being made. Answers whether this is the probe, on which the next state depends."""
        assert self.may_start(now)
        self._move("attempt")
        return self.state == "half_open"

    def succeeded(self) -> None:
        """A member was made: whatever was wrong is so no more."""
        self._move("success")
        self.next_attempt = 0.0
        self.error = None
        self._in_a_row = 0
        self._failures.clear()

    def failed(self, now: float, error: BaseException, *, probe: bool, counts: bool = True) -> None:
        """An attempt failed. One that began before the breaker opened decides nothing any more.

        One that does not count opens nothing, for what failed was not what is made; it only leaves open what is.
        """
        self.error = error
        if self.state != "closed" and not probe:
            self._move("failure")
            return
        if counts:
            self._failures.append(now)
            self._forget(now)
        self._in_a_row += 1
        if probe and (counts or self.state != "closed"):
            self._move("failure_of_the_probe")
        else:
            many = counts and len(self._failures) >= self.config.failures
            self._move("too_many_failures" if many else "failure")
        self.next_attempt = now + self._random() * self.longest(self._in_a_row)

    def longest(self, in_a_row: int) -> float:
        """The bound of the pause after so many failures in a row."""
        config = self.config
        doublings = min(max(0, in_a_row - 1), 60)  # beyond that the bound has been reached, and floats end
        return min(config.longest_pause, config.pause * 2.0**doublings)

    def info(self, now: float) -> BreakerInfo:
        """The breaker as it is now."""
        self._forget(now)
        cause = "" if self.error is None else f"{type(self.error).__name__}: {self.error}"
        return BreakerInfo(self.state, len(self._failures), max(0.0, self.next_attempt - now), cause)

    def _move(self, event: BreakerEvent) -> None:
        self.state = BREAKER[self.state][event]

    def _may_probe(self, now: float) -> bool:
        return self.state == "open" and now >= self.next_attempt

    def _forget(self, now: float) -> None:
        """Drop the failures that are older than the window, and more than the bound needs."""
        while self._failures and (
            now - self._failures[0] > self.config.window or len(self._failures) > self.config.failures
        ):
            self._failures.popleft()
