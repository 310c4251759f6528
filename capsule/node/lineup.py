"""The executions of a session in their order: those that wait in the node, and the few that the worker already has.

Sending ahead spares a pipelined cell the round trip. Nothing is sent behind an execution that cancels others when it
fails: what is at the worker is beyond recall.
"""

from __future__ import annotations

from collections import deque
from itertools import chain, islice, takewhile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from capsule.node.execution import ExecuteRequest, Execution

WINDOW = 8
"""Executions that the worker has at most, the running one included."""


class Lineup:
    """Queued and sent executions. Pure: it says what may be sent, and never sends."""

    def __init__(self, window: int = WINDOW) -> None:
        self._window = window
        self._queue: deque[Execution] = deque()
        self._sent: dict[str, Execution] = {}
        self._by_serial: dict[int, Execution] = {}
        self._last: Execution | None = None

    def __len__(self) -> int:
        return len(self._queue) + len(self._sent)

    @property
    def queued(self) -> int:
        """How many have not been sent."""
        return len(self._queue)

    def has_room(self, ahead: Collection[ExecuteRequest] = ()) -> bool:
        """Whether one more may be sent at once, behind these, which are to be lined up before it."""
        return self._sendable(ahead) > len(self._queue) + len(ahead)

    def backlog(self, ahead: Collection[ExecuteRequest] = ()) -> int:
        """How many wait for others, with these that are to be lined up; the rest waits at most to be written down."""
        return max(0, len(self._queue) + len(ahead) - self._sendable(ahead))

    @property
    def head(self) -> Execution | None:
        """The oldest of those that the worker has: the one that runs."""
        return next(iter(self._sent.values()), None)

    def add(self, execution: Execution) -> None:
        """Line up a new one."""
        self._queue.append(execution)

    def restore(self, execution: Execution, serial: int) -> None:
        """One that the worker has already; call it in the order of the serials."""
        execution.serial = serial
        self._sent[execution.id] = self._by_serial[serial] = self._last = execution

    def at_worker(self) -> list[Execution]:
        """Those that the worker has, in order."""
        return list(self._sent.values())

    def line(self) -> list[Execution]:
        """All of this one: those that the worker has, then the queue."""
        return [*self._sent.values(), *self._queue]

    def before(self, execution: Execution) -> list[Execution]:
        """Those that the worker has before one that it has too."""
        return list(takewhile(lambda one: one is not execution, self._sent.values()))

    def next_to_send(self, serial: int) -> Execution | None:
        """The next one that may go to the worker, under this serial; it counts as sent."""
        if not (self._queue and self._sendable() and self._all_clear()):
            return None
        execution = self._queue.popleft()
        execution.serial = serial
        self._sent[execution.id] = self._by_serial[serial] = self._last = execution
        return execution

    def _all_clear(self) -> bool:
        """Whether the next one may be sent; if not, all that may be sent now are asked for together."""
        first, *_ = [execution.clear() for execution in islice(self._queue, self._sendable())]
        return first

    def _sendable(self, ahead: Iterable[ExecuteRequest] = ()) -> int:
        """How many of those in the queue, and of these behind them, may be sent: none behind one that stops others."""
        if self._sent and self._last is not None and self._last.request.stop_on_error:
            return 0
        room = max(0, self._window - len(self._sent))  # a dead node may have sent more than it wrote the verdicts of
        waiting = chain((execution.request for execution in self._queue), ahead)
        return next((at for at, one in enumerate(islice(waiting, room), 1) if one.stop_on_error), room)

    def sent(self, execution_id: str) -> Execution | None:
        """One that the worker has, by id."""
        return self._sent.get(execution_id)

    def by_serial(self, serial: int) -> Execution | None:
        """One that the worker has, by serial."""
        return self._by_serial.get(serial)

    def settle(self, execution: Execution) -> None:
        """The worker is done with it."""
        del self._sent[execution.id]
        del self._by_serial[execution.serial]

    def take_queued(self, execution_id: str) -> Execution | None:
        """Take one out of the queue, if it is there."""
        for execution in self._queue:
            if execution.id == execution_id:
                self._queue.remove(execution)
                return execution
        return None

    def take_batch(self, batch: str) -> list[Execution]:
        """Take all queued code of a batch out of the queue; what is said on comms belongs to none."""
        taken = [one for one in self._queue if one.request.batch == batch and one.request.comm is None]
        if taken:
            self._queue = deque(one for one in self._queue if one not in taken)
        return taken

    def take_queue(self) -> list[Execution]:
        """Take all that was not sent."""
        queued = list(self._queue)
        self._queue.clear()
        return queued

    def take_all(self) -> tuple[list[Execution], list[Execution]]:
        """Take everything: what was sent, and what was queued."""
        sent, queued = list(self._sent.values()), list(self._queue)
        self._sent.clear()
        self._by_serial.clear()
        self._queue.clear()
        self._last = None
        return sent, queued
