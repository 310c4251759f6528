"""When members are made for later: not in the midst of a burst of acquires, which that would slow down; nor never."""

from __future__ import annotations

import math

LONGEST = 5
"""A stream of acquires puts a refill off by this many delays at most."""


class Refill:
    """Told of acquires and of what is lacking; all times in seconds, without a clock."""

    def __init__(self) -> None:
        self._last_acquire = -math.inf
        self._lacking_since = math.inf

    def acquired(self, now: float) -> None:
        """Somebody asks for a member, or has got one."""
        self._last_acquire = now

    def note(self, now: float, *, lacking: bool) -> None:
        """Whether there are fewer members than are to be kept, those included that are being made."""
        self._lacking_since = min(self._lacking_since, now) if lacking else math.inf

    def at(self, delay: float) -> float:
        """From when on members may be made for later."""
        return min(self._last_acquire + delay, self._lacking_since + LONGEST * delay)
