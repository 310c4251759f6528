"""Showing output that comes after its verdict: from threads, tasks and children that a cell left behind."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Self

from capsule.events import Event, Output

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

BOUND = 1000
"""Events that may wait; what comes beyond is dropped, counted and told."""


class Background:
    """What `on_background` of a session wants: takes events at once, and shows them as fast as they can be written."""

    def __init__(self, show: Callable[[Event], Awaitable[None]]) -> None:
        self._show = show
        self._waiting: deque[Event] = deque()
        self._dropped = 0
        self._arrived = asyncio.Event()
        self._closing = False
        self._task: asyncio.Task[None] | None = None

    def __call__(self, event: Event) -> None:
        """Take an event; never blocks."""
        if len(self._waiting) < BOUND:
            self._waiting.append(event)
        elif isinstance(event, Output):
            self._dropped += len(event.text.encode())
        self._arrived.set()

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._pump())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._task is not None
        self._closing = True
        self._arrived.set()
        if error is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        else:
            await self._task

    async def _pump(self) -> None:
        while self._waiting or not self._closing:
            await self._arrived.wait()
            self._arrived.clear()
            while self._waiting:
                await self._show(self._take())

    def _take(self) -> Event:
        event = self._waiting.popleft()
        if self._dropped and isinstance(event, Output):
            dropped, self._dropped = event.dropped + self._dropped, 0
            return Output(event.execution_id, event.sequence, event.stream, event.text, dropped)
        return event
