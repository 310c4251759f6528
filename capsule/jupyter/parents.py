"""Which request an execution was asked for by: what it tells belongs to that, also when it is over."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from capsule.jupyter.messages import Message

REMEMBERED = 1000
"""Executions whose threads and tasks may go on to write, and whose requests are known for that."""


class Parents:
    """The headers of the requests of one kernel, by execution. `last`: that of the newest request."""

    def __init__(self) -> None:
        self.last: Message = {}
        self.headers: dict[str, Message] = {}
        self._numbers: dict[str, int] = {}

    def remember(self, execution: str, parent: Message) -> None:
        """It runs for this request."""
        self.headers[execution] = parent
        if len(self.headers) > REMEMBERED:
            del self.headers[next(iter(self.headers))]

    def number(self, parent: Message, number: int) -> None:
        """Its code is the cell of this number."""
        self._numbers[str(parent.get("msg_id"))] = number
        if len(self._numbers) > REMEMBERED:
            del self._numbers[next(iter(self._numbers))]

    def number_of(self, parent: Message) -> int:
        """The number of a request's cell, 0 if it has none."""
        return self._numbers.get(str(parent.get("msg_id")), 0)

    def of(self, execution: str) -> Message:
        """Its request; the newest one, if it is not known any more."""
        return self.headers.get(execution, self.last)
