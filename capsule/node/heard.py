"""What of an execution has been heard from a node that died, and comes again when another one takes its place."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from capsule.events import ClearOutput, CommMessage, Display, InputRequest, Output, Progress
from capsule.node.channel import STREAMS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from capsule.events import Event

_COME_AGAIN = (Display, ClearOutput, Progress, CommMessage, InputRequest)
"""Beside output. The node's own events, such as the steps of the ladder, do not."""


class Heard:
    """The events behind the dead node's last mark. Text may be cut otherwise now, so it is counted by characters."""

    def __init__(self, events: Iterable[Event]) -> None:
        self._characters = [0, 0]
        self._others: Counter[type[Event]] = Counter()
        for event in events:
            if isinstance(event, Output):
                self._characters[STREAMS.index(event.stream)] += len(event.text) + event.dropped
            elif isinstance(event, _COME_AGAIN):
                self._others[type(event)] += 1

    def unheard(self, stream: int, text: str) -> str:
        """What of this text has not been told."""
        known = min(self._characters[stream], len(text))
        self._characters[stream] -= known
        return text[known:] if known else text

    def has(self, kind: type[Event]) -> bool:
        """Whether this event has been told; each counts once."""
        if not self._others[kind]:
            return False
        self._others[kind] -= 1
        return True
