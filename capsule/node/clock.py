"""How long an execution may still take: a clock that stands while its code waits for somebody."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable


class Clock:
    """Calls `expire` after so many seconds in which it was not paused; once, unless it was cancelled."""

    __slots__ = ("_expire", "_expired", "_left", "_loop", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float, expire: Callable[[], object]) -> None:
        self._loop = loop
        self._left = seconds
        self._expire = expire
        self._expired = False
        self._timer: asyncio.TimerHandle | None = None
        self.go_on()

    def pause(self) -> None:
        """Stand still. Idempotent."""
        if self._timer is not None:
            self._left = max(0.0, self._timer.when() - self._loop.time())
            self._timer.cancel()
            self._timer = None

    def go_on(self) -> None:
        """Count what is left. Idempotent."""
        if self._timer is None and not self._expired:
            self._timer = self._loop.call_later(self._left, self._fire)

    def cancel(self) -> None:
        """The code has ended."""
        self.pause()
        self._expired = True

    def _fire(self) -> None:
        self._timer, self._expired = None, True
        self._expire()
