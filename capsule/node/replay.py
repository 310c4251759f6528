"""Puts into a merge once more what a dead node had put in and not dealt with, in the same order."""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING, NamedTuple

from capsule.node.journal import DATA, GIVEN_UP, MESSAGE, SETTLED
from capsule_protocol.errors import RemoteProtocolError

if TYPE_CHECKING:
    from collections.abc import Callable

    from capsule.node.journal import Journal, Record
    from capsule.node.merge import Merge
    from capsule_protocol.envelope import Envelope
    from capsule_protocol.messages import Message


class Told(NamedTuple):
    """A numbered message of the worker."""

    message: Message
    envelope: Envelope


class Numbers:
    """Which numbered messages have come: over two sockets they come in any order, but each once."""

    def __init__(self, known: int = 0) -> None:
        self.known = known
        """All up to this one have come."""
        self._beyond: set[int] = set()

    @property
    def whole(self) -> bool:
        """Whether none is missing before another one that has come."""
        return not self._beyond

    def has(self, number: int) -> bool:
        """Whether this one has come."""
        return number <= self.known or number in self._beyond

    def take(self, number: int) -> None:
        """One has come. Raises RemoteProtocolError if it had come before."""
        if self.has(number):
            raise RemoteProtocolError("unexpected_message", f"message {number} came again")
        self._beyond.add(number)
        while self.known + 1 in self._beyond:
            self.known += 1
            self._beyond.remove(self.known)


class Replay:
    """What the journal held when it was adopted. The messages that it names come from the worker, which kept them.

    Messages that the dead node had not seen come too; they are left for last.
    """

    def __init__(self, journal: Journal, merge: Merge, deliver: Callable[[int, Told], None]) -> None:
        self._records = list(journal.records())
        self._merge = merge
        self._deliver = deliver
        self._at = 0
        self._came: dict[int, Told] = {}

    @property
    def is_over(self) -> bool:
        """Whether all of it has been put in."""
        return self._at == len(self._records)

    def offer(self, number: int, told: Told) -> None:
        """A message has come. Raises RemoteProtocolError if it had come before."""
        if number in self._came:
            raise RemoteProtocolError("unexpected_message", f"message {number} came again")
        self._came[number] = told

    def advance(self) -> None:
        """Go on until a message is missing. Raises RemoteProtocolError as the merge does."""
        while not self.is_over and self._put_in(self._records[self._at]):
            self._at += 1

    def finish(self) -> None:
        """The worker is dead: what it did not send any more does not come."""
        while not self.is_over:
            self.advance()
            if not self.is_over:
                self._at += 1

    def has(self, number: int) -> bool:
        """Whether this message has come and waits for its turn."""
        return number in self._came

    def rest(self) -> list[Told]:
        """The messages that the dead node had not seen, in order."""
        return [told for _, told in sorted(self._came.items(), key=itemgetter(0))]

    def _put_in(self, record: Record) -> bool:
        if record.kind == DATA:
            self._merge.feed(record.stream, record.data, record.value)
        elif record.kind == SETTLED:
            self._merge.settle()
        elif record.kind == GIVEN_UP:
            self._merge.give_up(record.value)
        elif record.kind == MESSAGE:
            told = self._came.pop(record.value, None)
            if told is None:
                return False
            self._deliver(record.value, told)
        return True
