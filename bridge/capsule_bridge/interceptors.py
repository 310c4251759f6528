"""Who looks on at what a bridge does. They only observe, and each has a budget of time: the node waits for nobody."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable

    from capsule_bridge.records import Promise

logger = logging.getLogger("capsule.bridge")

BUDGET = 0.010
"""Seconds that one call of an interceptor may take."""

Step = Literal["accepted", "attached", "settled"]


class Interceptor(Protocol):
    """Called in the node's loop after what it is told of was committed; what it returns is of no interest."""

    def __call__(self, step: Step, promise: Promise, /) -> object:
        """A promise was made, or found by a repeated request, or it got its verdict from this node."""


class Quarantined(NamedTuple):
    """An interceptor that is not called any more: its name, after how many calls, and why."""

    name: str
    calls: int
    reason: str


class Interceptors:
    """All of a bridge. One that takes longer than its budget, or raises, is told of and never called again."""

    def __init__(self, interceptors: Iterable[Interceptor] = ()) -> None:
        self.quarantined: list[Quarantined] = []
        self._calls: dict[str, int] = {}
        self._active: dict[str, Interceptor] = {}
        for interceptor in interceptors:
            self._active[_name(interceptor, self._active)] = interceptor

    def tell(self, step: Step, promise: Promise) -> None:
        """Have all look at it that still may."""
        for name, interceptor in list(self._active.items()):
            self._calls[name] = self._calls.get(name, 0) + 1
            begin = time.perf_counter()
            try:
                interceptor(step, promise)
            except Exception as error:  # noqa: BLE001 - whatever it is, the node goes on
                self._quarantine(name, f"it raised {type(error).__name__}: {error}")
                continue
            took = time.perf_counter() - begin
            if took > BUDGET:
                self._quarantine(name, f"it took {took * 1000:.0f} ms, and may take {BUDGET * 1000:.0f}")

    def _quarantine(self, name: str, reason: str) -> None:
        del self._active[name]
        self.quarantined.append(Quarantined(name, self._calls[name], reason))
        logger.warning("the interceptor %s is called no more: %s", name, reason)


def _name(interceptor: Interceptor, taken: Iterable[str]) -> str:
    base = getattr(interceptor, "__qualname__", type(interceptor).__qualname__)
    alike = sum(name == base or name.startswith(f"{base} (") for name in taken)
    return f"{base} ({alike + 1})" if alike else base
