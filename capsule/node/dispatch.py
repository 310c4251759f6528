"""How a session's executions get to its worker, as many as the window allows, and how each comes to its end."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Protocol

from capsule.node.execution import Execution
from capsule.node.ladder import Ladder, Reason
from capsule.node.outgoing import cancel, execute, interrupt
from capsule.node.verdicts import Loss, Ruling, as_lost, cancelled, interrupt_ignored, of_loss, unsent

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from capsule.config import SessionOptions
    from capsule.events import Event
    from capsule.node.asking import Answer
    from capsule.node.execution import ExecuteRequest
    from capsule.node.lanes import Lanes
    from capsule.node.lineup import Lineup
    from capsule.node.tenancy import Tenancy
    from capsule.node.worker import Worker

MAX_COUNT = 2**53
"""A worker can say any number; this one fits into every message."""


class Host(Protocol):
    """What it needs of its session."""

    id: str
    options: SessionOptions
    epoch: int

    def may_send(self) -> bool:
        """Whether executions may go to the worker now."""

    def on_late(self, event: Event) -> None:
        """An event that belongs to no stream any more."""

    def send_input(self, request: str, answer: Answer) -> None:
        """Answer a request of the worker."""


class Dispatch:
    """That of one session; its executions turn to it. The line-up says what is due, the tenancy whose it is."""

    def __init__(self, host: Host, lineup: Lanes, tenancy: Tenancy, loop: asyncio.AbstractEventLoop) -> None:
        self.options = host.options
        self.accepted = 0
        """How many executions it has got."""
        self.next_count = 0
        """The number that code of the main shell has which begins now."""
        self.counts: dict[str, int] = {}
        """The same, for each subshell."""
        self.stopped: set[tuple[str, str]] | None = None
        """Subshells, or "", and batches that have been stopped there by an error; None while nobody wants to know."""
        self._host = host
        self._lineup = lineup
        self._tenancy = tenancy
        self._loop = loop
        self._full: set[Execution] = set()

    # --- for the session ---

    @property
    def epoch(self) -> int:
        """That of the session."""
        return self._host.epoch

    def submit(
        self, execution_id: str, request: ExecuteRequest, clearance: Callable[[], object] | None = None
    ) -> Execution:
        """Line up an execution; with a `clearance`, that is called when it is due, and it waits for its `release`."""
        execution = Execution(execution_id, self, request, self._loop)
        if clearance is not None:
            execution.hold(clearance)
        self.accepted += 1
        self._lineup.add(execution)
        self.send()
        return execution

    def cancel_late(self, execution_id: str, request: ExecuteRequest) -> Execution:
        """One that comes when its batch has been stopped."""
        execution = Execution(execution_id, self, request, self._loop)
        self.accepted += 1
        _finish(execution, cancelled(f"{request.follows} of the same batch did not end in ok"))
        return execution

    def send(self) -> None:
        """Send as much as the window allows; the oldest one at the worker runs."""
        worker = self._tenancy.worker
        if worker is None or not self._host.may_send():
            return
        for lane in list(self._lineup.all()):
            self._send_from(lane, worker)

    def interrupt(self) -> bool:
        """Interrupt what runs in the main shell; False if that is nothing."""
        head = self._lineup.head
        if head is None or self._tenancy.worker is None:
            return False
        self._end(head, "interrupt")
        return True

    def cancel(self, execution_id: str) -> bool:
        """Take an execution out of the queue, or interrupt it if it runs; False if it has ended or is not known."""
        queued = self._lineup.take_queued(execution_id)
        if queued is not None:
            _finish(queued, cancelled("on request"))
            return True
        sent = self._lineup.sent(execution_id)
        if sent is None or self._tenancy.worker is None or sent.verdict is not None:  # it may have been given up
            return False
        if sent.state == "running":
            self._end(sent, "interrupt")
        elif not sent.cancelled:
            sent.cancelled = True
            self._tenancy.send_urgent(cancel(self._host.id, sent))
        return True

    @property
    def unfinished(self) -> list[Execution]:
        """All that is lined up and has no verdict."""
        return [execution for lane in self._lineup.all() for execution in lane.line() if execution.verdict is None]

    async def cancel_all(self, names: Collection[str]) -> int:
        """Cancel those of these that have not ended: how many that were.

        What runs is interrupted when nothing of them begins behind it any more, or the worker cannot say so: code that
        holds the interpreter keeps it from hearing.
        """
        found = [execution for execution in self.unfinished if execution.id in names]
        waiting = [execution for execution in found if execution.state == "queued"]
        for execution in waiting:
            self.cancel(execution.id)
        await asyncio.sleep(0)  # whoever calls may be in no task, which a time limit needs
        with suppress(TimeoutError):
            async with asyncio.timeout(self.options.interrupt_grace):
                for execution in waiting:
                    await execution.ended()
        for execution in found:
            self.cancel(execution.id)
        return len(found)

    def give_up(self, execution_id: str, ruling: Ruling) -> None:
        """One that is due cannot be sent: this is its verdict, and what waits behind it is due."""
        queued = self._lineup.take_queued(execution_id)
        if queued is not None:
            _finish(queued, ruling)
            self._stop_batch_of(queued)
            self.send()

    def begin(self) -> None:
        """There is a new worker, which counts from one."""
        self.next_count = 1
        self.counts.clear()

    def lost(self, worker: Worker | None, loss: Loss) -> None:
        """The worker, if there was one, has ended, and all that it said has been told: so has everything else."""
        sent, queued = self._lineup.take_all()
        for execution in sent:
            begun = execution.request.subshell or (worker is not None and worker.started(execution.serial))
            started = worker is not None and bool(begun)
            ruling = of_loss(loss, execution, started=started)
            _finish(execution, as_lost(ruling, loss, execution, started=started))
        for execution in queued:
            _finish(execution, as_lost(unsent(loss), loss, execution, started=False))
        self._full.clear()

    # --- for its subshells ---

    def open_subshell(self, name: str) -> None:
        """There is one more. Raises SessionError `too_many_subshells`."""
        self._lineup.open(name)
        self.counts[name] = 1

    def end_subshell(self, name: str) -> None:
        """Close it: what runs there is interrupted, what is queued is cancelled. Raises SessionError."""
        running, queued = self._lineup.close(name)
        self.counts.pop(name, None)
        for execution in queued:
            _finish(execution, cancelled("its subshell was closed"))
        if running is not None:
            self._end(running, "interrupt")

    # --- for the inbox ---

    def settle(self, execution: Execution, *, given_up: bool = False) -> None:
        """The worker has given its verdict, and the execution has it, or one of the node's that gave it up."""
        self._lineup.settle(execution)
        if execution in self._full:
            self.on_room(execution)
        request = execution.request
        if execution.verdict is not None and execution.verdict.execution_count:
            count = execution.verdict.execution_count + _is_counted(request)
            self._count(request.subshell, min(count, MAX_COUNT))
        if not given_up:
            self._stop_batch_of(execution)
        self.send()

    # --- for the executions ---

    def count_of(self, request: ExecuteRequest) -> int:
        """The number that a request has which begins now. Subshells count for themselves."""
        if request.comm is not None:
            return 0
        return self.counts.get(request.subshell, 0) if request.subshell else self.next_count

    def number_of(self, execution: Execution) -> int:
        """The number of an execution which begins now. Its output may come before the verdicts of those before it."""
        count = self.count_of(execution.request)
        return count + sum(map(_will_count, self._lineup.before(execution))) if count else 0

    def on_started(self, execution: Execution, elapsed: float | None = None) -> None:
        """The code runs, for so many seconds already, or for as long as an earlier node has noted: its time counts."""
        timeout, worker = execution.request.timeout, self._tenancy.worker
        if timeout is not None and worker is not None:
            noted = worker.left(execution) if elapsed is None else None
            left = max(0.0, timeout - (elapsed or 0.0)) if noted is None else noted
            note = partial(worker.note_time, execution.id)
            execution.inputs.limit(left, lambda: self._end(execution, "timeout"), note)

    def on_full(self, execution: Execution) -> None:
        """Its buffer is at the bound."""
        if self.options.backpressure == "error":
            execution.limit_exceeded = True
            self._end(execution, "output_limit")
        elif self._tenancy.worker is not None:
            self._full.add(execution)
            self._tenancy.pause()

    def on_room(self, execution: Execution) -> None:
        """There is room again."""
        self._full.discard(execution)
        if not self._full:
            self._tenancy.resume()

    def on_released(self) -> None:
        """An execution that was held may be sent."""
        self.send()

    def on_late(self, event: Event) -> None:
        """An event that belongs to no stream any more."""
        self._host.on_late(event)

    def send_input(self, request: str, answer: Answer) -> None:
        """Answer a request of the worker."""
        self._host.send_input(request, answer)

    # --- inside ---

    def _send_from(self, lane: Lineup, worker: Worker) -> None:
        while (execution := lane.next_to_send(worker.next_serial())) is not None:
            if self._tenancy.points is not None:
                self._tenancy.points.begin(execution)
            worker.execute(execute(self._host.id, execution), aside=bool(execution.request.subshell))
        head = lane.head
        if head is None:
            return
        if not head.cancelled:
            head.begin()
        elif head.ladder is None:  # if the worker began it before it heard of that, it must be interrupted
            self._end(head, "interrupt")

    def _end(self, execution: Execution, reason: Reason) -> None:
        worker = self._tenancy.worker
        before = execution.ladder
        if worker is None or execution.verdict is not None or (before is not None and not before.yields_to(reason)):
            return
        if before is not None:
            before.stop()
        aside = bool(execution.request.subshell)

        def interrupt_it() -> None:
            if aside:
                worker.send_urgent(interrupt(self._host.id, execution))
            else:
                worker.interrupt(execution.serial, timed_out=reason == "timeout")

        # What the main shell runs, and all state, is not to be lost because a subshell waits in C.
        kills = reason != "interrupt" or (self.options.interrupt_kills and not aside)

        def last() -> None:
            if kills:
                worker.kill("exit")
            elif aside:
                self._give_up(execution)
            else:  # the interrupt waits where the code may still see it
                execution.status("unresponsive", reason)
                execution.calm()

        grace = self.options.interrupt_grace
        execution.ladder = Ladder(self._loop, execution, reason, grace, interrupt_it, last, kills=kills)
        execution.ladder.start()

    def _give_up(self, execution: Execution) -> None:
        """It runs on in its subshell, which does nothing else before it ends."""
        ruling = interrupt_ignored()
        execution.finish(ruling.verdict, error=ruling.error, execution_count=self.count_of(execution.request))
        self._stop_batch_of(execution)

    def _stop_batch_of(self, execution: Execution) -> None:
        request = execution.request
        if not request.stop_on_error or execution.verdict is None or execution.verdict.verdict == "ok":
            return
        if self.stopped is not None:
            self.stopped.add((request.subshell, request.batch))
        execution.stopped = self._lineup.take_batch_of(execution)
        for other in execution.stopped:
            _finish(other, cancelled(f"{execution.id} of the same batch did not end in ok"))

    def _count(self, subshell: str, count: int) -> None:
        if not subshell:
            self.next_count = count
        elif subshell in self._lineup.names:
            self.counts[subshell] = count


def _is_counted(request: ExecuteRequest) -> bool:
    """Whether what comes behind it has another number, if it is code and begins."""
    return request.store_history and not request.quiet


def _will_count(execution: Execution) -> bool:
    request = execution.request
    return _is_counted(request) and request.comm is None and request.turn is None and not execution.cancelled


def _finish(execution: Execution, ruling: Ruling) -> None:
    execution.finish(ruling.verdict, error=ruling.error)
