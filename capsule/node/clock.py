"""How long an execution may still take: a clock that stands while its code waits for somebody."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

LOOK = 0.1
"""Seconds between two looks at how long code has computed, at least."""


class Reading(NamedTuple):
    """How a clock stands, for whoever goes on with it in another process of this system.

    `at`: when it is over, by the system's monotonic clock, which is above 0; while it stands, -1 less what is left, so
    that one number says both. `seen`: the seconds that its code had computed by then, if those count; else NaN.
    """

    at: float
    seen: float

    def left(self, now: float, used: Callable[[], float]) -> float:
        """The seconds that are left. `used`: as of `Clock.attend`."""
        if self.at > 0:
            return max(0.0, self.at - now)
        computed = 0.0 if math.isnan(self.seen) else max(0.0, used() - self.seen)
        return max(0.0, -1.0 - self.at - computed)


class Clock:
    """Calls `expire` after so many seconds in which it was not paused; once, unless it was cancelled.

    `note` is told how it stands whenever that changes.
    """

    __slots__ = ("_expire", "_expired", "_left", "_loop", "_note", "_seen", "_timer", "_used")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        seconds: float,
        expire: Callable[[], object],
        note: Callable[[Reading], object] = lambda _reading: None,
    ) -> None:
        self._loop = loop
        self._left = seconds
        self._expire = expire
        self._note = note
        self._expired = False
        self._timer: asyncio.TimerHandle | None = None
        self._used: Callable[[], float] | None = None
        self._seen = 0.0
        self.go_on()

    def pause(self) -> None:
        """Stand still. Idempotent."""
        if self._timer is not None:
            if self._used is None:
                self._left = max(0.0, self._timer.when() - self._loop.time())
            else:
                self._look(self._used)
            self._timer.cancel()
            self._note(Reading(-1.0 - self._left, math.nan))
        self._timer = self._used = None

    def attend(self, used: Callable[[], float]) -> None:
        """Stand still while the code does; `used` tells for how many seconds it has computed so far: those count."""
        self.pause()
        if not self._expired:
            self._used, self._seen = used, used()
            self._attend()

    def go_on(self) -> None:
        """Count what is left. Idempotent."""
        if self._used is not None:
            self.pause()
        if self._timer is None and not self._expired:
            self._timer = self._loop.call_later(self._left, self._fire)
            self._note(Reading(self._timer.when(), math.nan))

    def cancel(self) -> None:
        """The code has ended."""
        self.pause()
        self._expired = True

    def _attend(self) -> None:
        self._timer = self._loop.call_later(max(self._left, LOOK), self._fire)
        self._note(Reading(-1.0 - self._left, self._seen))

    def _look(self, used: Callable[[], float]) -> None:
        now = used()
        self._left = max(0.0, self._left - max(0.0, now - self._seen))
        self._seen = now

    def _fire(self) -> None:
        if self._used is not None:
            self._look(self._used)
            if self._left > 0:
                self._attend()
                return
        self._timer, self._used, self._expired = None, None, True
        self._expire()
