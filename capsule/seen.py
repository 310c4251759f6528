"""What one who is told of executions has missed of them."""

from __future__ import annotations

from dataclasses import replace

from capsule.events import Display, Event, Finished, Gap


class Seen:
    """Takes the events of executions in their order, as they are told to one connection.

    A verdict that is `shown` relies on an event before it. It may be among what is missing: then the verdict is to be
    shown, rather twice than not at all.
    """

    def __init__(self) -> None:
        self._torn: set[str] = set()

    def told(self, event: Event, execution: str) -> Event:
        """The event as it is to be told."""
        if isinstance(event, Gap):
            self._torn.add(execution)
        elif isinstance(event, Display) and event.is_outcome:
            self._torn.discard(execution)
        elif isinstance(event, Finished) and execution in self._torn:
            self._torn.discard(execution)
            return replace(event, shown=False)
        return event

    def missed(self, execution: str) -> None:
        """An event could not be told."""
        self._torn.add(execution)
