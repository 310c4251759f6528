"""The executions of a session in their order: those that wait in the node, and the few that the worker already has.

Sending ahead spares a pipelined cell the round trip. Nothing is sent behind an execution that cancels others when it
fails: what is at the worker is beyond recall.
"""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from capsule.node.execution import Execution

WINDOW = 8
"""Executions that the worker has at most, the running one included."""


class Lineup:
    """Queued and sent executions. Pure: it says what may be sent, and never sends."""

    def __init__(self) -> None:
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

    def has_room(self, ahead: int) -> bool:
        """Whether one more may be sent at once, when so many others have been lined up before it."""
        behind = self._queue[-1] if self._queue else self._last if self._sent else None
        return len(self) + ahead < WINDOW and not _stops(behind)

    def backlog(self, ahead: int) -> int:
        """How many wait for others, if so many more are lined up; the rest waits at most to be written down."""
        room = 0 if self._sent and _stops(self._last) else WINDOW - len(self._sent)
        return max(0, len(self._queue) + ahead - self._sendable(room))

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

    def next_to_send(self, serial: int) -> Execution | None:
        """The next one that may go to the worker, under this serial; it counts as sent."""
        if not self._queue or len(self._sent) >= WINDOW:
            return None
        if self._sent and _stops(self._last):
            return None
        if not self._all_clear(WINDOW - len(self._sent)):
            return None
        execution = self._queue.popleft()
        execution.serial = serial
        self._sent[execution.id] = self._by_serial[serial] = self._last = execution
        return execution

    def _all_clear(self, room: int) -> bool:
        """Whether the next one may be sent; if not, all that may be sent now are asked for together."""
        first, *_ = [execution.clear() for execution in islice(self._queue, self._sendable(room))]
        return first

    def _sendable(self, room: int) -> int:
        """How many of those in the queue may be sent, if there is so much room: none behind one that stops others."""
        return next((at for at, one in enumerate(islice(self._queue, room), 1) if _stops(one)), room)

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

    def take_all(self) -> tuple[list[Execution], list[Execution]]:
        """Take everything: what was sent, and what was queued."""
        sent, queued = list(self._sent.values()), list(self._queue)
        self._sent.clear()
        self._by_serial.clear()
        self._queue.clear()
        self._last = None
        return sent, queued


def _stops(execution: Execution | None) -> bool:
    """Whether nothing may be sent behind it."""
    return execution is not None and execution.request.stop_on_error
