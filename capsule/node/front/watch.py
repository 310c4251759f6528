"""Who looks on: a connection that is told what a session's executions tell, and that holds up nobody."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from capsule.events import Event, Finished, Gap
from capsule.node.front.log import WINDOW
from capsule.wire import size_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from capsule.node.front.hosted import Hosted
    from capsule.node.front.log import EventLog
    from capsule_protocol.errors import SessionError

MAX_WATCHERS = 16
"""Connections that may watch one session."""


class Onlooker(Protocol):
    """What a watch needs of its connection."""

    def announce(self, session: str, execution: str) -> None:
        """Events of this execution follow."""

    def tell(self, session: str, execution: str, event: Event) -> None:
        """Send an event."""

    def on_background(self, session: str, event: Event) -> None:
        """Send an event of no execution's stream."""

    def on_state(self, session: str, state: str, reason: str) -> None:
        """The session is in another state."""

    def on_watched_closed(self, session: str, error: SessionError) -> None:
        """The session is over."""


class Watch:
    """One session and one onlooker. What he has not dealt with is bounded; beyond it events are left out, and told so.

    Of an execution whose events he knows of he gets the verdict in any case.
    """

    def __init__(self, hosted: Hosted, onlooker: Onlooker) -> None:
        self.hosted = hosted
        self.onlooker = onlooker
        self._session = hosted.session.id
        self._told: dict[str, int] = {}  # the number of the last event told, of each execution that runs
        self._asides = 0  # events of no execution's stream that he was told
        self._missing = 0
        self._ahead = 0
        self._sent: dict[tuple[str, int], int] = {}  # oldest first

    def begin(self) -> None:
        """Tell what is kept of what runs now."""
        for log in list(self.hosted.logs.values()):
            if not log.ended:
                for event in log.since(0)[1]:
                    self.on_event(log, event)

    def on_event(self, log: EventLog, event: Event) -> None:
        """An event of an execution."""
        execution, ended = log.execution.id, isinstance(event, Finished)
        known = execution in self._told
        if self._ahead >= WINDOW and not (known and ended):
            self._missing += event.sequence if ended else 0  # an execution that he has not heard of at all
            return
        self._tell_missing()
        if not known:
            self.onlooker.announce(self._session, execution)
        missing = event.sequence - 1 - self._told.get(execution, 0)
        if missing:
            self._tell(execution, Gap(execution, event.sequence - 1, missing))
        self._tell(execution, event)
        if ended:
            del self._told[execution]

    def on_background(self, event: Event) -> None:
        """An event of no execution's stream."""
        if self._ahead >= WINDOW:
            self._missing += event.missing if isinstance(event, Gap) else 1
            return
        self._tell_missing()
        self._tell_aside(event)

    def acknowledge(self, executions: Mapping[str, int]) -> None:
        """He has dealt with these events, and all that came before them."""
        for mark in executions.items():
            while mark in self._sent:
                oldest = next(iter(self._sent))
                self._ahead -= self._sent.pop(oldest)
        if self._ahead < WINDOW:
            self._tell_missing()

    def _tell(self, execution: str, event: Event) -> None:
        self._told[execution] = event.sequence
        size = self._sent[execution, event.sequence] = size_of(event)
        self._ahead += size
        self.onlooker.tell(self._session, execution, event)

    def _tell_missing(self) -> None:
        missing, self._missing = self._missing, 0
        if missing:
            self._tell_aside(Gap("", 0, missing))

    def _tell_aside(self, event: Event) -> None:
        """These have no numbers: he counts them, and acknowledges so many."""
        self._asides += 1
        size = self._sent["", self._asides] = size_of(event)
        self._ahead += size
        self.onlooker.on_background(self._session, event)
