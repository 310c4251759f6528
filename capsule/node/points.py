"""What of a worker's output has been dealt with for good: that much another node need not be given again.

Events count as dealt with when whoever consumes the execution says so, which a durable store does after its commit. A
worker's journal goes by positions, so a *point* connects the two: a moment at which all that had been read of the
worker had also been taken as events. When these are confirmed, so is the point.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    import asyncio

    from capsule.node.execution import Execution
    from capsule.node.worker import Worker

POINT_DELAY: Final = 0.05
"""Seconds after which a point is made: what lies behind the last one costs a little time when another node comes."""
POINT_BYTES: Final = 128 * 1024
"""So much in the journal makes a point at once."""
POINT_MESSAGES: Final = 32
"""And so do so many messages, because the worker has to keep them."""


class Point(NamedTuple):
    """A position in the journal, the state there, and the events before it that are to be confirmed, by execution."""

    position: int
    state: dict[str, Any]
    events: dict[str, int]


class Points:
    """That of one worker. It remembers two points at most: the next to be confirmed, and the newest."""

    def __init__(self, loop: asyncio.AbstractEventLoop, worker: Worker) -> None:
        assert worker.survival is not None
        self._loop = loop
        self._worker = worker
        self._survival = worker.survival
        self._running: dict[str, Execution] = {}
        self._taken: dict[str, int] = {}
        self._confirmed: dict[str, int] = {}
        self._next: Point | None = None
        self._newest: Point | None = None
        self._at = 0
        self._heard = 0
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    def close(self) -> None:
        """The worker is dead: nothing of it is left to another node."""
        self._closed = True
        self._stop_timer()

    def begin(self, execution: Execution) -> None:
        """It has been sent to the worker: its events are made from now on."""
        self._running[execution.id] = execution
        execution.points = self

    def taken(self, execution: Execution) -> None:
        """All events that there are of it have been taken; if it is done, there will be no more."""
        if self._closed:
            return
        if not execution.discarding:
            self._taken[execution.id] = execution.told
        if execution.verdict is not None:
            self._running.pop(execution.id, None)
        new = self._survival.journal.end - self._at
        if new >= POINT_BYTES or self._survival.heard - self._heard >= POINT_MESSAGES:
            self.relieve()
        elif self._timer is None:
            self._timer = self._loop.call_later(POINT_DELAY, self._on_time)

    def confirm(self, execution: str, number: int) -> None:
        """Its events up to this number are dealt with for good."""
        if self._closed or number <= self._confirmed.get(execution, 0) or execution not in self._taken:
            return
        self._confirmed[execution] = number
        while self._next is not None and self._is_confirmed(self._next):
            point, self._next, self._newest = self._next, self._newest, None
            self._deal(point)
        if self._survival.journal.full:
            self.relieve()

    def relieve(self) -> None:
        """Make a point here, if everything has been taken.

        If nothing that is to come can make one, and the journal is full, what it holds is of no use any more.
        """
        if self._closed:
            return
        waited_for = any(execution.pending for execution in self._running.values())
        if self._survival.quiet and not waited_for:
            self._make_point()
        elif self._survival.journal.full and not waited_for and self._next is None:
            self._worker.abandon_journal()

    def _make_point(self) -> None:
        if self._survival.journal.restart():
            self._next = self._newest = None
        numbers = {execution.serial: execution.told for execution in self._running.values()}
        rests = {execution.serial: execution.rests for execution in self._running.values() if any(execution.rests)}
        state = {**self._survival.state(), "numbers": numbers, "rests": rests, "newest": self._worker.serial}
        self._stop_timer()
        self._at, self._heard = self._survival.journal.end, self._survival.heard
        point = Point(self._at, state, dict(self._taken))
        if self._is_confirmed(point):
            self._next = self._newest = None
            self._deal(point)
        elif self._next is None:
            self._next = point
        else:
            self._newest = point

    def _on_time(self) -> None:
        self._timer = None
        self.relieve()
        self._survival.journal.give_back()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _deal(self, point: Point) -> None:
        self._worker.deal(point.position, point.state)
        self._forget(point)

    def _is_confirmed(self, point: Point) -> bool:
        return all(
            execution not in self._taken or self._confirmed.get(execution, 0) >= number
            for execution, number in point.events.items()
        )

    def _forget(self, point: Point) -> None:
        """Executions that have ended, and all of whose events are confirmed."""
        for execution, number in point.events.items():
            if execution not in self._running and self._taken.get(execution) == number:
                del self._taken[execution]
                self._confirmed.pop(execution, None)
