"""The numbering of an execution's events: 1, 2, 3 …, and nothing behind the verdict."""

from __future__ import annotations

from capsule_protocol.errors import RemoteProtocolError


class SequenceChecker:
    """Checks the events of one execution as they come; `last` is the number of the newest one."""

    __slots__ = ("ended", "last")

    def __init__(self, last: int = 0) -> None:
        self.last = last
        self.ended = False

    def check(self, sequence: int, *, verdict: bool = False) -> None:
        """Note an event. Raises RemoteProtocolError: `sequence_gap`, or `unexpected_message` behind the verdict."""
        if self.ended:
            raise RemoteProtocolError("unexpected_message", f"event {sequence} came behind the verdict {self.last}")
        if sequence != self.last + 1:
            raise RemoteProtocolError(
                "sequence_gap",
                f"event {sequence} came where {self.last + 1} was due",
                details={"expected": self.last + 1, "actual": sequence},
            )
        self.last = sequence
        self.ended = verdict
