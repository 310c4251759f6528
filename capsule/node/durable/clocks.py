"""Whether the clock that promises are dated with and that of the machine have gone apart."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger("capsule.bridge")

APART = 1.0
"""Seconds; what a clock is set by in small steps stays far below."""


class Clocks:
    """Tells the log when they go apart, and when they are together again. `ahead`: seconds, by the machine's clock."""

    def __init__(self, ahead: Callable[[], float]) -> None:
        self._ahead = ahead
        self._told = 0.0

    def look(self) -> None:
        """Look at both, and tell what is new."""
        ahead = self._ahead()
        if abs(ahead - self._told) < APART:
            return
        self._told = ahead if abs(ahead) >= APART else 0.0
        logger.warning("%s", apart(ahead) if self._told else "what this node writes down has the right time again")


def apart(ahead: float) -> str:
    """What that means for a node."""
    where = "behind" if ahead < 0 else "ahead of"
    text = f"the clock that this node dates promises with is {abs(ahead):.0f} s {where} that of the machine"
    return f"{text}, which has been set since the node began, or had stood still: time-outs are kept by the node's own"
