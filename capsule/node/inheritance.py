"""Sessions that outlive their node: what is left for another one, and the session that this makes of it."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capsule.node.adoption import Adoptable, Lingering, record_path
from capsule.node.execution import ExecuteRequest, Execution
from capsule.node.heard import Heard
from capsule.node.journal import name_of
from capsule.node.late import Late
from capsule.node.outgoing import execute
from capsule.node.resources import begun
from capsule.node.session import Session
from capsule.node.verdicts import Loss, lost_with_node, subshell_gone
from capsule_protocol import adoption
from capsule_protocol.errors import StoreError, WorkerLost
from capsule_protocol.states import VERDICTS

if TYPE_CHECKING:
    from capsule.events import Event
    from capsule.node.heir import Heir
    from capsule.node.worker import Worker
    from capsule_protocol.envelope import Envelope
    from capsule_protocol.messages.link import Adopted, OpenSubshell

EventsAfter = Callable[[int], Awaitable[Sequence["Event"]]]


@dataclass(frozen=True, slots=True)
class Remembered:
    """An execution that has no verdict, as a durable store remembers it.

    `last` is the number of its last event in the store; `events_after` answers those behind a number, up to that one.
    """

    id: str
    request: ExecuteRequest
    last: int
    events_after: EventsAfter


class Will:
    """What a session leaves for another node: the secret, and a record for each of its workers."""

    def __init__(self, lingering: Lingering, secret: bytes = b"", record: Adoptable | None = None) -> None:
        """`record`: of the worker that it was left with."""
        self._lingering = lingering
        self._record = record
        self.secret = secret or secrets.token_bytes(adoption.SECRET_SIZE)

    async def leave(self, session: Session, worker: Worker) -> None:
        """Let this worker outlive its node. WorkerLost if it ends, or there is no room for the record."""
        record = Adoptable(
            session=session.id,
            epoch=session.epoch,
            directory=str(worker.directory),
            box=(worker.box_pid, begun(worker.box_pid)),
            worker=(worker.pid, begun(worker.pid)),
        )
        path = self._path_of(record)
        try:
            record.save(path)
        except OSError as error:
            raise WorkerLost("worker_start_failed", f"the record of its box cannot be written: {error}") from error
        self._record = record
        await worker.bequeath({"seconds": self._lingering.seconds, "secret": self.secret, "record": str(path)})

    @property
    def submitters(self) -> tuple[str, ...]:
        """Who beside the owner has had code run in the newest worker, as its record has it."""
        return () if self._record is None else self._record.submitters

    def add_submitter(self, principal: str) -> None:
        """Write down that this one is about to. Raises StoreError `store_unavailable`, and then it must not."""
        if self._record is None or principal in self._record.submitters:
            return
        record = self._record.model_copy(update={"submitters": (*self._record.submitters, principal)})
        try:
            record.save(self._path_of(record))
        except OSError as error:
            message = f"the record of the session's box cannot be written: {error}"
            raise StoreError("store_unavailable", message, details={"outcome": "not_done"}) from error
        self._record = record

    def _path_of(self, record: Adoptable) -> Path:
        return record_path(self._lingering.directory, Path(record.directory))


class InheritedSession(Session):
    """A session whose first worker another node has started. `adopt` comes instead of `start`."""

    recalled: dict[str, Execution]
    """The executions that the worker has, by id, for whoever consumes their events."""
    unsent: list[Remembered]
    """Those that it never got: they can be submitted, and run once all the same."""
    _heir: Heir
    _unheard: frozenset[bytes] = frozenset()
    _held = True
    _acquainted: asyncio.Event
    _untimed: set[str]
    """The executions of which the dead node has not noted how their time stands."""

    async def adopt(self, worker: Heir, remembered: Sequence[Remembered]) -> None:
        """Go on with this worker, and with those of the executions without a verdict that it has.

        Raises WorkerLost `adoption_refused` if the dead node had read more than can be made up for.
        """
        if worker.lost_track:
            message = f"the session {self.name!r} cannot go on: its node had read more than can be made up for"
            raise WorkerLost("adoption_refused", message)
        self._heir = worker
        self._lineup.known, self._acquainted = False, asyncio.Event()
        self._dispatch.stopped = set()  # what is lined up later may belong to a batch whose error is told again first
        self.recalled, self.unsent, self._untimed = {}, [], set()
        self._tenancy.begin(worker)
        for principal in self._tenancy.submitters:  # what they have left behind may call in whosever name
            self.powers.submitted(principal)
        self._inbox.late = Late(inherited=True)
        worker.drain_timeout = self.options.drain_timeout
        worker.count(self.options.max_processes is not None)
        for execution, serial in sorted(await self._recall(remembered), key=lambda pair: pair[1]):
            self._lineup.restore(execution, serial)
            worker.recall(execution.id, serial)
            if self._tenancy.points is not None:
                self._tenancy.points.begin(execution)
        self._state = "ready"
        self._tenancy.pulse.start()
        worker.go_on(self, self.id, self.epoch, self._on_adopted, self._on_live)
        for head in [lane.head for lane in self._lineup.all()]:
            if head is not None:
                self._resume(head)

    def on_output(self, serial: int, stream: int, data: bytes) -> None:
        """Bytes of a pipe; of what comes again, only those of executions that have no verdict."""
        if not self._heir.replaying or self._lineup.by_serial(serial) is not None:
            super().on_output(serial, stream, data)

    def on_event(self, message: Any, envelope: Envelope) -> None:
        """A message in its place, unless it comes again although it has been dealt with.

        What was not remembered, such as the saving of a checkpoint for a client of the dead node, ends unheard.
        """
        if self._lineup.sent(envelope.execution) is None:
            unheard = envelope.type in VERDICTS and name_of(envelope.execution) in self._unheard
            if unheard or self._heir.replaying:
                return
        super().on_event(message, envelope)

    async def _recall(self, remembered: Sequence[Remembered]) -> list[tuple[Execution, int]]:
        """The executions that the worker has, and their serials."""
        survival = self._heir.survival
        assert survival is not None
        serials, state = survival.journal.dispatched(), survival.journal.state
        numbers, rests = state.get("numbers", {}), state.get("rests", {})
        found = []
        for each in remembered:
            execution = Execution(each.id, self._dispatch, each.request, self._loop)
            serial = serials.get(name_of(each.id))
            if serial is None:
                self.unsent.append(each)
                continue
            execution.serial = serial
            self._dispatch.accepted += 1
            self.powers.submitted(each.request.submitter)
            if survival.had_ended(serial):
                ruling = lost_with_node(each.last)
                execution.go_on(each.last, [b"", b""], Heard(()))
                execution.finish(ruling.verdict, error=ruling.error)
            else:
                known = numbers.get(serial, 0)
                heard = Heard(await each.events_after(known) if each.last > known else ())
                execution.go_on(max(each.last, known), rests.get(serial, [b"", b""]), heard)
                execution.missing = max(0, known - each.last)
                found.append((execution, serial))
            self.recalled[each.id] = execution
        self._unheard = frozenset(serials) - {name_of(execution.id) for execution, _ in found}
        return found

    def _resume(self, head: Execution) -> None:
        """The oldest one runs, for as long as the worker says, or does as soon as the worker gets to it."""
        noted, queued = self._heir.left(head) is not None, head.state == "queued"
        if queued:
            head.begin()
        if not noted:
            self._untimed.add(head.id)
            self._dispatch.on_started(head, self._heir.running_for(head.serial))
        elif not queued:
            self._dispatch.on_started(head)

    def _on_adopted(self, answer: Adopted) -> None:
        survival = self._heir.survival
        assert survival is not None
        self._dispatch.next_count = answer.execution_count
        self._agree(answer.subshells)
        for pending in answer.inputs:
            execution = self._lineup.sent(pending.execution)
            if execution is not None and pending.number <= survival.known:
                execution.inputs.expect(pending.request, waits=pending.waits)

    def _agree(self, subshells: Sequence[OpenSubshell]) -> None:
        """The worker knows which there are: what is for others ends, and has not begun."""
        counts = self._dispatch.counts = {each.name: each.execution_count for each in subshells}
        for execution in self._lineup.agree(list(counts)):
            ruling = subshell_gone(execution.request.subshell)
            execution.finish(ruling.verdict, error=ruling.error)
        running = {each.name: each.seconds for each in subshells}
        for head in [lane.head for lane in self._lineup.all()]:
            if head is not None and head.id in self._untimed and head.request.subshell in running:
                self._dispatch.on_started(head, running[head.request.subshell])
        self._acquainted.set()

    async def acquainted(self) -> None:
        """Wait until it is known which subshells are open."""
        await self._acquainted.wait()

    def _on_live(self) -> None:
        """All that was left has been told. What the worker may not have got is sent again: it takes nothing twice."""
        self._held = False
        for execution in self._lineup.at_worker():
            aside = bool(execution.request.subshell)
            if aside or not self._heir.started(execution.serial):
                self._heir.execute(execute(self.id, execution), aside=aside)
        self._dispatch.send()
        if self._tenancy.points is not None:
            self._tenancy.points.relieve()

    def may_send(self) -> bool:
        """Whether executions may go to the worker now."""
        return not self._held and super().may_send()

    def on_lost(self, loss: Loss) -> None:
        """The worker has ended, and all that it said has been told."""
        self._held = False
        self._acquainted.set()
        super().on_lost(loss)
