"""How the thread that writes wakes the loop of those who wait: an eventfd, which costs less than its own way."""

from __future__ import annotations

import os
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable


class Doorbell:
    """Made in its loop. What is left by other threads is called there, in order."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._left: deque[Callable[[], object]] = deque()
        self._descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        loop.add_reader(self._descriptor, self._open)

    def ring(self, call: Callable[[], object]) -> None:
        """Have this called, from any thread; not after `close`. If the loop has been closed, nobody waits any more."""
        self._left.append(call)
        os.eventfd_write(self._descriptor, 1)

    def close(self) -> None:
        """Call what was left, and let go of the descriptor. In its loop, or when that has been closed."""
        if not self.loop.is_closed():
            self.loop.remove_reader(self._descriptor)
            self._call()
        os.close(self._descriptor)

    def _open(self) -> None:
        with suppress(BlockingIOError):
            os.eventfd_read(self._descriptor)
        self._call()

    def _call(self) -> None:
        while self._left:
            self._left.popleft()()


class Doorbells:
    """One for each loop in which the store is used: as a rule that is one."""

    def __init__(self) -> None:
        self._all: list[Doorbell] = []

    def of(self, loop: asyncio.AbstractEventLoop) -> Doorbell:
        """That of the loop that runs here."""
        for bell in self._all:
            if bell.loop is loop:
                return bell
        # Those of loops that have been closed stay: what was asked in one may not have been answered yet.
        self._all.append(Doorbell(loop))
        return self._all[-1]

    def close(self) -> None:
        """Nothing more is left, by any thread; what has been is called yet. Idempotent."""
        bells, self._all = self._all, []
        for bell in bells:
            try:
                bell.loop.call_soon_threadsafe(bell.close)
            except RuntimeError:  # it has been closed
                bell.close()
