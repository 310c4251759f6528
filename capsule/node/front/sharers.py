"""Who uses a session beside its reader: connections that are told of what they have asked for themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from capsule.events import Event
    from capsule.node.front.hosted import Hosted, Reader
    from capsule.node.front.log import EventLog
    from capsule_protocol.errors import SessionError

MAX_SHARED = 10_000
"""Executions of sharers of which it is known whose they are, when their logs are gone too; the oldest are forgotten."""


class Sharers:
    """Those of one session, by client, and which executions are theirs."""

    def __init__(self) -> None:
        self._sharers: dict[str, Reader] = {}
        self._asked: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._sharers)

    def __contains__(self, client: object) -> bool:
        return client in self._sharers

    def add(self, sharer: Reader) -> None:
        """It uses the session from now on."""
        self._sharers[sharer.client] = sharer

    def remove(self, sharer: Reader) -> bool:
        """It uses the session no more; False if it did not."""
        if self._sharers.get(sharer.client) is not sharer:
            return False
        del self._sharers[sharer.client]
        return True

    def note(self, execution: str, client: str) -> None:
        """An execution is this client's now, who may be no sharer."""
        self._asked.pop(execution, None)
        if client in self._sharers:
            self._asked[execution] = client
            if len(self._asked) > MAX_SHARED:
                del self._asked[next(iter(self._asked))]

    def who_reads(self, execution: str, reader: Reader | None) -> Reader | None:
        """Who is told what an execution tells after its verdict: whose it is; the `reader`, if it is no sharer's."""
        client = self._asked.get(execution)
        return reader if client is None else self._sharers.get(client)

    def on_event(self, session: str, log: EventLog, event: Event) -> None:
        """An event of an execution."""
        for sharer in list(self._sharers.values()):
            sharer.on_event(session, log, event)

    def on_state(self, session: str, state: str, reason: str) -> None:
        """The session is in another state."""
        for sharer in list(self._sharers.values()):
            sharer.on_state(session, state, reason)

    def end(self, hosted: Hosted, error: SessionError) -> None:
        """The session is over; the error says why."""
        sharers, self._sharers = self._sharers, {}
        for sharer in sharers.values():
            sharer.on_closed(hosted, error)
