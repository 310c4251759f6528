"""A session: one worker at a time, its executions in order, and what can be asked of it meanwhile."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Literal

from capsule.broker.sdk import Asker
from capsule.node.dispatch import Dispatch
from capsule.node.execution import ExecuteRequest, Execution
from capsule.node.inbox import Inbox
from capsule.node.info import SessionInfo
from capsule.node.lanes import Lanes
from capsule.node.late import Late
from capsule.node.memory import cpu_seconds
from capsule.node.outgoing import input_reply
from capsule.node.powers import Powers
from capsule.node.questions import URGENT, Questions
from capsule.node.requests import check_request
from capsule.node.subshells import Subshells
from capsule.node.tasks import result_of
from capsule.node.tenancy import Tenancy
from capsule_protocol.errors import SessionError, WorkerLost
from capsule_protocol.ids import EXECUTION, SESSION, new_id

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from capsule.config import SessionOptions
    from capsule.events import Event
    from capsule.node.asking import Answer
    from capsule.node.checkpoints import SessionCheckpoints
    from capsule.node.home import Home, Identity
    from capsule.node.transfers import SessionFiles
    from capsule.node.verdicts import Loss, Ruling
    from capsule.node.worker import Worker
    from capsule_protocol.envelope import Envelope

__all__ = ["ExecuteRequest", "Execution", "Session", "SessionInfo"]

logger = logging.getLogger("capsule.node")

State = Literal["starting", "ready", "busy", "restarting", "dead", "closed"]


class Session:
    """Made by `Node.open_session`. Methods that need a live worker raise SessionError when there is none."""

    def __init__(self, options: SessionOptions, home: Home, identity: Identity) -> None:
        self.id = identity.session or new_id(SESSION)
        self.name = options.name or self.id
        self.options = options
        self.epoch = identity.epoch
        self.on_background: Callable[[Event], None] | None = None
        self.on_state: Callable[[str, str], None] | None = None
        self.checkpoint_bytes = home.checkpoint_bytes
        self._loop = asyncio.get_running_loop()
        self._tasks = home.tasks
        self._on_closed = home.on_closed
        self._state: Literal["starting", "ready", "restarting", "dead", "closed"] = (
            "dead" if identity.lost else "starting"
        )
        self._restarting: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._lineup = Lanes()
        self._tenancy = Tenancy(self, home, identity)
        self._dispatch = Dispatch(self, self._lineup, self._tenancy, self._loop)
        self._questions = Questions(self._loop)
        asker = Asker(self.id, self.name, identity.principal, options.environment, execution="")
        calls = None if home.broker is None else home.broker.open(asker, options.capabilities)
        self.powers = Powers(self._lineup, self._tenancy.send_urgent, calls, self._tenancy.add_submitter)
        """What its code may do outside its process."""
        self._subshells = Subshells(self._lineup, self._dispatch, self)
        self._inbox = Inbox(self._lineup, self._questions, self._dispatch, self)

    # --- for clients ---

    @property
    def state(self) -> State:
        """What it does now."""
        if self._state != "ready":
            return self._state
        return "busy" if self._lineup or self._questions else "ready"

    @property
    def secret(self) -> bytes:
        """What a node must know to adopt the session after this one has died; empty if it does not outlive it."""
        return b"" if self._tenancy.will is None else self._tenancy.will.secret

    @property
    def under_way(self) -> int:
        """How many executions have no verdict yet."""
        return len(self._lineup)

    @property
    def waiting(self) -> int:
        """How many executions have not begun."""
        heads = (lane.head for lane in self._lineup.all())
        return len(self._lineup) - sum(head is not None and head.state == "running" for head in heads)

    def has_room(self, request: ExecuteRequest, ahead: Collection[ExecuteRequest] = ()) -> bool:
        """Whether it would be sent to the worker at once, behind these, which are not lined up yet."""
        return self._lineup.room_for(request, ahead)

    def check(self, request: ExecuteRequest, ahead: Collection[ExecuteRequest] = ()) -> None:
        """Raises what `submit` would; `ahead`: those that will be submitted before it."""
        self._check_runnable(request)
        if self._lineup.waiting_for(request, ahead) >= self.options.max_queue:
            raise SessionError("queue_full", f"the session has max_queue={self.options.max_queue} executions waiting")

    def count_of(self, request: ExecuteRequest) -> int:
        """The number that a request has which begins now. Subshells count for themselves."""
        return self._dispatch.count_of(request)

    def submit(
        self,
        request: ExecuteRequest,
        execution_id: str = "",
        *,
        clearance: Callable[[], object] | None = None,
        accepted: bool = False,
        stopped: bool = False,
    ) -> Execution:
        """Line up an execution, under a fresh id unless one is given.

        With a `clearance`, that is called when it is due, and it waits for its `release`. One that was `accepted` has
        its place in the queue. One that is `stopped` has its verdict at once: it comes behind an error. Raises
        ArgumentError, SessionError if the session takes none, and StoreError if its submitter cannot be written down.
        """
        if accepted:
            self._check_runnable(request)
        else:
            self.check(request)
        execution_id = execution_id or new_id(EXECUTION)
        if stopped:
            return self._dispatch.cancel_late(execution_id, request)
        self.powers.submitted(request.submitter)
        return self._dispatch.submit(execution_id, request, clearance)

    @property
    def stopped(self) -> set[tuple[str, str]]:
        """Subshells, or "", and batches that have been stopped there by an error, since somebody first asked."""
        if self._dispatch.stopped is None:
            self._dispatch.stopped = set()
        return self._dispatch.stopped

    async def interrupt(self) -> bool:
        """Interrupt the execution or question that is under way; False if none is. Verdict or answer tell the rest."""
        return self.interrupt_question() or self._dispatch.interrupt()

    def interrupt_question(self) -> bool:
        """Interrupt the question that the main shell answers; False if it runs something, or does nothing."""
        worker, head = self._tenancy.worker, self._lineup.head
        question = self._questions.first(None if head is None else head.serial)
        if worker is None or question is None or (head is not None and worker.started(head.serial)):
            return False
        worker.interrupt_question(question)
        self._loop.call_later(self.options.interrupt_grace, self._interrupt_again, worker, question)
        return True

    async def cancel(self, execution_id: str) -> bool:
        """Take an execution out of the queue, or interrupt it if it runs; False if it has ended or is not known."""
        return self._dispatch.cancel(execution_id)

    @property
    def unfinished(self) -> set[str]:
        """The executions that are lined up and have no verdict."""
        return {execution.id for execution in self._dispatch.unfinished}

    async def cancel_all(self, names: Collection[str] | None = None) -> int:
        """Take all that waits out of the queues, or those of it that are named, and interrupt what runs: how many."""
        return await self._dispatch.cancel_all(self.unfinished if names is None else names)

    def give_up(self, execution_id: str, ruling: Ruling) -> None:
        """One that waits cannot be run: this is its verdict."""
        self._dispatch.give_up(execution_id, ruling)

    async def restart(self) -> None:
        """A new worker; what runs is killed and what is queued is cancelled. Goes on if the caller is cancelled."""
        if self._state in {"closed", "starting", "restarting"}:
            raise self._refusal()
        self._state = "restarting"
        self._restarting = self._tasks.start(self._restart())
        await result_of(self._restarting)

    async def close(self) -> None:
        """End everything that belongs to the session. Idempotent; goes on to its end if the caller is cancelled."""
        if self._closing is None:
            self._state = "closed"
            self._closing = self._tasks.start(self._close())
        await result_of(self._closing)

    async def ask(self, type: str, body: dict[str, Any], timeout: float | None = None) -> dict[str, Any]:  # noqa: A002 - the protocol's word; a plain time limit
        """Ask the worker something between two executions; CapsuleError says why there is no answer."""
        worker = self._worker_or_error()
        if type == "subshell":
            return await self._subshells.answer(body, timeout)
        subshell = body.get("subshell", "")
        self._lineup.check(subshell)
        if subshell or type in URGENT:
            return await self._questions.ask(worker.send_urgent, self.id, type, body, timeout)
        return await self._questions.ask(worker.send, self.id, type, body, timeout, worker.serial)

    @property
    def files(self) -> SessionFiles:
        """The files of its worker. Raises SessionError while there is none."""
        self._worker_or_error()
        assert self._tenancy.files is not None
        return self._tenancy.files

    @property
    def checkpoints(self) -> SessionCheckpoints:
        """The checkpoints of its worker. Raises SessionError while there is none."""
        self._worker_or_error()
        assert self._tenancy.checkpoints is not None
        return self._tenancy.checkpoints

    async def saved(self) -> None:
        """Wait until nothing is being saved or restored."""
        if self._tenancy.checkpoints is not None:
            await self._tenancy.checkpoints.settled()

    def info(self) -> SessionInfo:
        """The session as it is now."""
        worker, pulse = self._tenancy.worker, self._tenancy.pulse
        return SessionInfo(
            id=self.id,
            name=self.name,
            environment=self.options.environment,
            state=self.state,
            pid=worker.pid if worker else 0,
            epoch=self.epoch,
            executions=self._dispatch.accepted,
            queue=self._lineup.queued,
            memory=pulse.memory(worker.pid) if worker else 0,
            last_heartbeat=pulse.last,
            responsive=worker is not None and pulse.responsive,
            protocol=worker.agreement.version if worker else "",
            cpu=cpu_seconds(worker.pid) if worker else 0.0,
            sandbox=worker.sandbox if worker else "",
        )

    # --- for the node ---

    async def start(self) -> None:
        """Start the first worker; if that fails or is cancelled, the session is closed."""
        try:
            await self._start_worker()
        except BaseException:
            self._state = "closed"
            self._on_closed(self)
            raise

    # --- for the worker ---

    def on_output(self, serial: int, stream: int, data: bytes) -> None:
        """Bytes of a pipe."""
        execution = self._lineup.by_serial(serial)
        if execution is not None:
            execution.output(stream, data)
        elif self.on_background is not None:
            for event in self._inbox.late.output(serial, stream, data):
                self.on_late(event)

    def on_event(self, message: Any, envelope: Envelope) -> None:
        """A message in its place."""
        self._inbox.on_event(message, envelope)

    def on_message(self, message: Any, envelope: Envelope) -> None:
        """Any other message."""
        self._inbox.on_message(message, envelope)

    def on_lost(self, loss: Loss) -> None:
        """The worker has ended, and all that it said has been told."""
        worker = self._tenancy.lose()
        if self._state == "ready":
            self._state = "dead"
            if self.on_state is not None:
                self.on_state("dead", loss.message or loss.cause)
        self._tenancy.wind_up()
        if self.powers.any:
            self._tasks.start(self.powers.end())
        self._questions.fail(WorkerLost("worker_lost", f"the worker ended: {loss.message or loss.cause}"))
        self._dispatch.lost(worker, loss)

    # --- for the inbox ---

    def on_pulse(self, message: Any) -> None:
        """The worker answered a heartbeat."""
        self._tenancy.pulse.answered(message)

    def on_call(self, message: Any, envelope: Envelope) -> None:
        """The worker says something of a capability."""
        self.powers.hear(message, envelope)

    # --- for its subshells ---

    async def acquainted(self) -> None:
        """Wait until it is known which are open."""

    async def tell_subshell(self, action: str, name: str, timeout: float | None) -> None:
        """Have the worker open or close it. Raises as a question does."""
        body = {"action": action, "subshell": name}
        await self._questions.ask(self._worker_or_error().send_urgent, self.id, "subshell", body, timeout)

    # --- for its dispatch, and for the inbox ---

    def may_send(self) -> bool:
        """Whether executions may go to the worker now."""
        return self._state == "ready"

    def on_late(self, event: Event) -> None:
        """An event that belongs to no stream any more."""
        if self.on_background is None:
            return
        try:
            self.on_background(event)
        except Exception:
            logger.exception("on_background of session %s failed", self.id)

    def send_input(self, request: str, answer: Answer) -> None:
        """Answer the worker's request for input, or that of a call."""
        if not self.powers.answer(request, answer):
            self._tenancy.send_urgent(input_reply(self.id, request, answer))

    # --- inside ---

    def _worker_or_error(self) -> Worker:
        worker = self._tenancy.worker
        if self._state == "ready" and worker is not None:
            return worker
        raise self._refusal()

    def _interrupt_again(self, worker: Worker, question: str) -> None:
        """As the ladder of an execution does: a signal just before a system call does not end its wait."""
        if self._questions.first(None) == question:
            worker.interrupt_question(question)

    def _check_runnable(self, request: ExecuteRequest) -> None:
        check_request(request, self.options.message_bytes)
        self._worker_or_error()
        self._lineup.check(request.subshell)
        if request.if_epoch not in (None, self.epoch):
            message = f"the session {self.name!r} is in epoch {self.epoch}, not in {request.if_epoch}"
            raise SessionError("epoch_mismatch", message, details={"epoch": self.epoch})

    def _refusal(self) -> SessionError:
        code, text = {
            "closed": ("session_closed", "has been closed"),
            "dead": ("session_dead", "has lost its worker"),
            "restarting": ("session_restarting", "is being restarted"),
        }.get(self._state, ("session_restarting", "is being started"))
        return SessionError(code, f"session {self.name!r} {text}")

    async def _start_worker(self) -> None:
        self._tenancy.begin(await self._tenancy.acquire())
        self._inbox.late = Late()
        self._dispatch.begin()
        self._tenancy.pulse.start()
        self._state = "ready"

    async def _end_worker(self, cause: Literal["restart", "close"]) -> None:
        await self._tenancy.end(cause)
        await self.powers.end()

    async def _restart(self) -> None:
        await self._end_worker("restart")
        self.epoch += 1
        try:
            if self._state == "restarting":
                await self._start_worker()
        except BaseException:
            self._state = "dead" if self._state == "restarting" else self._state
            raise

    async def _close(self) -> None:
        if self._restarting is not None and not self._restarting.done():
            self._restarting.cancel()
            await asyncio.wait([self._restarting])
        await self._end_worker("close")
        self._on_closed(self)
