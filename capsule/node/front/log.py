"""The log of one execution: its events, kept until the client has dealt with them, so that none is lost with a link."""

from __future__ import annotations

import asyncio
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from capsule.events import Event, Finished
from capsule.wire import size_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from capsule.node.durable import Ledger
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

    `last` is the number of the newest one that was told. With a ledger events are written down before they are told,
    except for the first `written` ones, which are already. It begins behind number `after`: what comes before, another
    node has told. While `loose` (its client has detached) nothing waits for acknowledgements. With `keep`, events are
    kept when they were acknowledged too: the execution has an idempotency key, and may be asked for again; with a
    ledger that is not needed. `client` is whose acknowledgements count, "" if that is not known.
    """

    def __init__(
        self,
        execution: Execution,
        on_event: Callable[[EventLog, Event], object],
        *,
        keep: bool = False,
        ledger: Ledger | None = None,
        session: str = "",
        written: int = 0,
        after: int = 0,
    ) -> None:
        self.execution = execution
        self.client = execution.request.client
        self.keep = keep
        self.ended = False
        self.last = after
        self.overruled = False
        self.scribe = ledger.scribe(execution.id, session, self) if ledger is not None else None
        if self.scribe is not None:
            self.scribe.stopped = lambda: [one.verdict for one in execution.stopped if one.verdict is not None]
        self._written = written
        self._on_event = on_event
        self._loop = asyncio.get_running_loop()
        self._pumping = False
        self._loose = False
        self._events: deque[_Kept] = deque()
        self._first = after + 1
        self._held = 0
        self._acked = after
        self._ahead = 0
        self._untold = 0
        execution.listen(self._pump_soon)

    @property
    def over(self) -> bool:
        """Whether nobody needs it any more."""
        return self.ended and self._acked >= self.last and not self.keep

    def pump(self) -> None:
        """Take what events there are, as long as those before them are acknowledged."""
        self._pumping = False
        while (self.overruled or self._has_room()) and (event := self.execution.take()) is not None:
            if self.overruled:
                self.execution.confirm(event.sequence)
                continue
            self._add(event)
            if self.scribe is None or event.sequence <= self._written:
                self.tell(event)
            else:
                self.scribe.write(event)
        if self.scribe is not None:
            self.scribe.flush()

    def _has_room(self) -> bool:
        return self._untold < WINDOW and (self._ahead < WINDOW or self._loose)

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
        """How many events behind `after` are not kept here, and those that follow, as far as they were told."""
        missing = max(0, self._first - 1 - after)
        skipped = max(0, after - self._first + 1)
        return missing, [kept.event for kept in islice(self._events, skipped, self.last - self._first + 1)]

    def loosen(self, loose: bool, /) -> None:
        """Nobody reads for now, on purpose (True); or somebody does again."""
        self._loose = loose
        if loose:
            self._pump_soon()

    def overrule(self, events: list[Event]) -> None:
        """Tell these, which end with the verdict, instead of what was not told yet: so it is written down by others."""
        while self._events and self._first + len(self._events) > self.last + 1:
            size = self._events.pop().size
            self._held -= size
            self._ahead -= size
            self._untold -= size
        if events[0].sequence > self.last + 1:  # what lies between is not kept
            self._events.clear()
            self._first, self._held, self._ahead = events[0].sequence, 0, 0
        self.overruled = True
        for event in events:
            self._add(event)
            self.tell(event)
        self._pump_soon()

    def _add(self, event: Event) -> None:
        size = size_of(event)
        self._events.append(_Kept(event, size))
        self._held += size
        self._ahead += size
        self._untold += size

    def tell(self, event: Event) -> None:
        """It is written down, where events are."""
        stalled = self._untold >= WINDOW
        self.last = event.sequence
        self.ended = isinstance(event, Finished)
        self._untold -= self._events[event.sequence - self._first].size
        self._trim()
        self.execution.confirm(event.sequence)
        self._on_event(self, event)
        if stalled:
            self._pump_soon()

    def _trim(self) -> None:
        while self._first <= self.last and self._is_superfluous():
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
        bound = REPLAY_BYTES if self.scribe is None else WINDOW
        return self._held > bound and len(self._events) > 1 and (acknowledged or self._loose)

    def _pump_soon(self) -> None:
        """In the loop's next turn, so that what comes in one turn is told together."""
        if not self._pumping:
            self._pumping = True
            self._loop.call_soon(self.pump)
