"""What lets a worker outlive its node, seen by the node: the journal, the numbered messages, and their replay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from capsule.node.replay import Numbers, Replay, Told
from capsule_protocol.envelope import Envelope

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from capsule.node.journal import Journal
    from capsule.node.merge import Merge

CONFIRM_DELAY: Final = 0.1
"""Seconds after which the worker hears what it need not keep any more: many confirmations in one."""
CONFIRM_AT_ONCE: Final = 64
"""So many messages are worth a confirmation of their own."""


class Survival:
    """That of one worker. While `replay` is there, a dead node's work is being taken up."""

    def __init__(self, loop: asyncio.AbstractEventLoop, journal: Journal, merge: Merge) -> None:
        self._loop = loop
        self._merge = merge
        self._numbers = Numbers(int(journal.state.get("confirmed", 0)))
        self._confirmed = self._numbers.known
        self._timer: asyncio.TimerHandle | None = None
        self._last: int | None = None
        self.journal = journal
        self.replay: Replay | None = None

    @property
    def known(self) -> int:
        """The number up to which all messages have been dealt with."""
        return int(self.journal.state.get("confirmed", 0))

    @property
    def heard(self) -> int:
        """The number up to which all messages have come."""
        return self._numbers.known

    @property
    def replaying(self) -> bool:
        """Whether what a dead node has left is being taken up."""
        return self.replay is not None

    @property
    def quiet(self) -> bool:
        """Whether all that has come has been told."""
        return self.replay is None and self._numbers.whole and self._merge.quiet

    def had_ended(self, serial: int) -> bool:
        """Whether this execution had its verdict at the last mark. Those of subshells end in any order."""
        state = self.journal.state
        return serial <= state.get("newest", 0) and serial not in state.get("numbers", {})

    def state(self) -> dict[str, Any]:
        """What another node needs to go on from here, while it is quiet."""
        return {**self._merge.state(), "confirmed": self._numbers.known}

    def restore(self, newest: int, deliver: Callable[[Told], None]) -> None:
        """Take up what another node has left; `newest` is the highest serial that it has given out."""
        self._merge.newest = newest
        if "lanes" in self.journal.state:
            self._merge.restore(self.journal.state)

        def again(number: int, told: Told) -> None:
            self._numbers.take(number)
            deliver(told)

        self.replay = Replay(self.journal, self._merge, again)

    def admit(self, number: int) -> None:
        """A numbered message has come. Raises RemoteProtocolError if it had come before."""
        self._numbers.take(number)

    def note(self, kind: int, value: int = 0) -> None:
        """Something else than bytes goes into the merge."""
        if self.replay is None:
            self.journal.record(kind, value)

    def greeted(self, last: int) -> None:
        """The worker has answered: messages up to this number come again."""
        self._last = last

    def advance(self) -> list[Told] | None:
        """Go on with the replay. When it is over: the messages that the dead node had not seen, and there is none."""
        replay, last = self.replay, self._last
        if replay is None:
            return None
        replay.advance()
        if not replay.is_over or last is None or self._missing(replay, last):
            return None
        return self._end(replay)

    def finish(self) -> list[Told]:
        """The worker is dead: what has not come of it does not come."""
        if self.replay is None:
            return []
        self.replay.finish()
        return self._end(self.replay)

    def deal(self, position: int, state: dict[str, Any], send: Callable[[Envelope], None]) -> None:
        """All up to this position has been dealt with for good."""
        self.journal.mark(position, state)
        if self.known - self._confirmed >= CONFIRM_AT_ONCE:
            self._confirm(send)
        elif self.known > self._confirmed and self._timer is None:
            self._timer = self._loop.call_later(CONFIRM_DELAY, self._confirm, send)

    def close(self) -> None:
        """Let go of it. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
        self.journal.close()

    def _confirm(self, send: Callable[[Envelope], None]) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._confirmed = self.known
        send(Envelope("confirm", {"number": self._confirmed}))

    def _missing(self, replay: Replay, last: int) -> bool:
        return any(not (self._numbers.has(n) or replay.has(n)) for n in range(self._numbers.known + 1, last + 1))

    def _end(self, replay: Replay) -> list[Told]:
        self.replay = None
        return replay.rest()
