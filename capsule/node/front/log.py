"""The log of one execution: its events, kept until the client has dealt with them, so that none is lost with a link."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from capsule.events import Event, Finished
from capsule.wire import size_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from capsule.node.execution import Execution

WINDOW = 2**20
"""Bytes of events that may be on their way to a client, or waiting for it, before its execution has to wait."""
REPLAY_BYTES = 8 * 2**20
"""Bytes of events that are kept of an execution which somebody may ask for later; the oldest go first."""


class _Kept(NamedTuple):
    event: Event
    size: int


class EventLog:
    """Takes the events of one execution, as its only consumer, and hands them to `on_event`.

    While `loose` (its client has detached) nothing waits for acknowledgements. With `keep`, events are kept when they
    were acknowledged too: the execution has an idempotency key, and may be asked for again.
    """

    def __init__(self, execution: Execution, on_event: Callable[[EventLog, Event], object], *, keep: bool) -> None:
        self.execution = execution
        self.keep = keep
        self.ended = False
        self._on_event = on_event
        self._loop = asyncio.get_running_loop()
        self._pumping = False
        self._loose = False
        self._events: deque[_Kept] = deque()
        self._first = 1
        self._held = 0
        self._acked = 0
        self._ahead = 0
        execution.listen(self._pump_soon)

    @property
    def last(self) -> int:
        """The number of the newest event."""
        return self._first + len(self._events) - 1

    @property
    def over(self) -> bool:
        """Whether nobody needs it any more."""
        return self.ended and self._acked >= self.last and not self.keep

    def pump(self) -> None:
        """Take what events there are, as long as those before them are acknowledged."""
        self._pumping = False
        while (self._ahead < WINDOW or self._loose) and (event := self.execution.take()) is not None:
            self._add(event)
            self._on_event(self, event)

    def acknowledge(self, number: int) -> None:
        """The client has dealt with the events up to this one; those that it cannot have seen do not count."""
        number = min(number, self.last)
        for at in range(self._acked + 1, number + 1):
            if at >= self._first:
                self._ahead -= self._events[at - self._first].size
        self._acked = max(self._acked, number)
        self._trim()
        if self._ahead < WINDOW and not self.ended:
            self._pump_soon()

    def since(self, after: int) -> tuple[int, list[Event]]:
        """How many events behind `after` are not kept any more, and those that follow."""
        missing = max(0, self._first - 1 - after)
        skipped = max(0, after - self._first + 1)
        return missing, [kept.event for kept in list(self._events)[skipped:]]

    def loosen(self, loose: bool, /) -> None:
        """Nobody reads for now, on purpose (True); or somebody does again."""
        self._loose = loose
        if loose:
            self._pump_soon()

    def _add(self, event: Event) -> None:
        size = size_of(event)
        self._events.append(_Kept(event, size))
        self._held += size
        self._ahead += size
        self.ended = isinstance(event, Finished)
        self._trim()

    def _trim(self) -> None:
        while self._events and self._is_superfluous():
            size = self._events.popleft().size
            self._held -= size
            if self._first > self._acked:
                self._ahead -= size
            self._first += 1

    def _is_superfluous(self) -> bool:
        """Whether the oldest event may go. The verdict stays as long as it has not been acknowledged."""
        acknowledged = self._first <= self._acked
        if acknowledged and not self.keep:
            return True
        return self._held > REPLAY_BYTES and len(self._events) > 1 and (acknowledged or self._loose)

    def _pump_soon(self) -> None:
        """In the loop's next turn, so that what comes in one turn is told together."""
        if not self._pumping:
            self._pumping = True
            self._loop.call_soon(self.pump)
