"""The bounds of a session that the system keeps for nobody: its box looks whether the tree below it is within them."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Final

from capsule_kernels import memory, system

_INTERVAL_MS: Final = 100
# Processes multiply while nobody looks, and only running code starts them in masses: then it pays to look more often.
_BUSY_INTERVAL_MS: Final = 20


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a worker and its descendants may have together; None: as much as they get."""

    memory_bytes: int | None = None
    max_processes: int | None = None

    def interval(self, *, busy: bool) -> int | None:
        """Milliseconds until the next look; None if there is nothing to look for."""
        if busy and self.max_processes is not None:
            return _BUSY_INTERVAL_MS
        return None if self == Bounds() else _INTERVAL_MS

    def exceeded(self, keeper: int) -> str:
        """Which bound the processes below the keeper are over: "processes", "memory", or "" for none."""

        def too_many() -> bool:
            return self._too_many(keeper)

        if too_many():
            return "processes"
        if self.memory_bytes is None:
            return ""
        over = memory.exceeds(system.descendants(keeper), self.memory_bytes, too_many)
        if too_many():  # there was time enough for that
            return "processes"
        return "memory" if over else ""

    def _too_many(self, keeper: int) -> bool:
        """Counts no further than it must, because that takes time in which there are more."""
        if self.max_processes is None:
            return False
        return next(itertools.islice(system.walk(keeper), self.max_processes, None), None) is not None
