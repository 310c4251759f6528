"""Output that belongs to no execution's stream, for those who look on: it keeps its place among the events."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from capsule.events import Event, Gap
from capsule.node.front.log import WINDOW
from capsule.wire import size_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from capsule.node.front.log import EventLog


class _Held(NamedTuple):
    event: Event
    size: int
    before: list[tuple[EventLog, int]]

    @property
    def due(self) -> bool:
        """Whether all that came before it has been told."""
        return all(log.last >= number or log.ended for log, number in self.before)


class Aside:
    """Holds what came while events before it wait: those of a client that reads slowly, say. Beyond WINDOW bytes of it,
    what comes is left out, and told so.
    """

    def __init__(self, tell: Callable[[Event], None]) -> None:
        self._tell = tell
        self._held: deque[_Held] = deque()
        self._size = 0
        self._missing = 0

    def add(self, event: Event, under_way: Iterable[EventLog]) -> None:
        """An event came; the logs are of those executions that are not told to their end, in their order."""
        before = []
        for log in under_way:
            if log.execution.state == "queued":
                break  # and so are all behind it
            number = log.execution.mark()
            if log.last < number:
                before.append((log, number))
        if not before and not self._held:
            self._tell(event)
        elif self._size >= WINDOW:
            self._missing += 1
        else:
            size = size_of(event)
            self._held.append(_Held(event, size, before))
            self._size += size

    def go_on(self) -> None:
        """An event of an execution has been told."""
        while self._held and self._held[0].due:
            event, size, _ = self._held.popleft()
            self._size -= size
            self._tell(event)
        if self._missing and not self._held:
            missing, self._missing = self._missing, 0
            self._tell(Gap("", 0, missing))
