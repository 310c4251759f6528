"""A session: one worker at a time, its executions in order, and what can be asked of it meanwhile."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from anyio import CancelScope

from capsule.node.checkpoints import SessionCheckpoints
from capsule.node.execution import ExecuteRequest, Execution
from capsule.node.inbox import Inbox
from capsule.node.info import SessionInfo
from capsule.node.ladder import Ladder, Reason
from capsule.node.late import Late
from capsule.node.lineup import Lineup
from capsule.node.memory import cpu_seconds
from capsule.node.outgoing import cancel, execute, input_reply, opening
from capsule.node.points import Points
from capsule.node.pulse import Pulse
from capsule.node.questions import URGENT, Questions
from capsule.node.requests import check_request
from capsule.node.tasks import Tasks, result_of
from capsule.node.transfers import SessionFiles
from capsule.node.verdicts import Loss, Ruling, cancelled, of_loss, unsent
from capsule_protocol.errors import SessionError, WorkerLost
from capsule_protocol.ids import EXECUTION, SESSION, new_id

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from capsule.config import SessionOptions
    from capsule.events import Event
    from capsule.node.asking import Answer
    from capsule.node.inheritance import Will
    from capsule.node.pools import Pools
    from capsule.node.worker import Worker
    from capsule_protocol.envelope import Envelope

__all__ = ["ExecuteRequest", "Execution", "Session", "SessionInfo"]

logger = logging.getLogger("capsule.node")

MAX_COUNT = 2**53
"""A worker can say any number; this one fits into every message."""

State = Literal["starting", "ready", "busy", "restarting", "dead", "closed"]


class Identity(NamedTuple):
    """Who a session is: without an id it gets a new one. With a will it outlives its node.

    `lost`: it has lost its worker with an earlier node; it can be restarted.
    """

    session: str = ""
    epoch: int = 1
    will: Will | None = None
    lost: bool = False


class Session:
    """Made by `Node.open_session`. Methods that need a live worker raise SessionError when there is none."""

    def __init__(
        self,
        options: SessionOptions,
        tasks: Tasks,
        pools: Pools,
        heartbeat_interval: float,
        on_closed: Callable[[Session], None],
        checkpoint_bytes: Callable[[], int],
        identity: Identity,
    ) -> None:
        self.id = identity.session or new_id(SESSION)
        self.name = options.name or self.id
        self.options = options
        self.epoch = identity.epoch
        self._will = identity.will
        self.next_count = 0
        self.on_background: Callable[[Event], None] | None = None
        self.on_state: Callable[[str, str], None] | None = None
        self.checkpoint_bytes = checkpoint_bytes
        self._loop = asyncio.get_running_loop()
        self._tasks = tasks
        self._pools = pools
        self._on_closed = on_closed
        self._state: Literal["starting", "ready", "restarting", "dead", "closed"] = (
            "dead" if identity.lost else "starting"
        )
        self._executions = 0
        self._lineup = Lineup()
        self._late = Late()
        self._full: set[Execution] = set()
        self._worker: Worker | None = None
        self._points: Points | None = None
        self._files: SessionFiles | None = None
        self._stopped: set[str] | None = None
        self._checkpoints: SessionCheckpoints | None = None
        self._watch: asyncio.Task[None] | None = None
        self._restarting: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._questions = Questions(self._loop)
        self._inbox = Inbox(self._lineup, self._late, self._questions, self)
        self._pulse = Pulse(self._loop, heartbeat_interval, self._send_urgent)

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
        return b"" if self._will is None else self._will.secret

    @property
    def under_way(self) -> int:
        """How many executions have no verdict yet."""
        return len(self._lineup)

    @property
    def waiting(self) -> int:
        """How many executions have not begun."""
        head = self._lineup.head
        return len(self._lineup) - (head is not None and head.state == "running")

    def has_room(self, ahead: Collection[ExecuteRequest] = ()) -> bool:
        """Whether an execution would be sent to the worker at once, behind these, which are not lined up yet."""
        return self._lineup.has_room(ahead)

    def check(self, request: ExecuteRequest, ahead: Collection[ExecuteRequest] = ()) -> None:
        """Raises what `submit` would; `ahead`: those that will be submitted before it."""
        self._check_runnable(request)
        if self._lineup.backlog(ahead) >= self.options.max_queue:
            raise SessionError("queue_full", f"the session has max_queue={self.options.max_queue} executions waiting")

    def submit(
        self,
        request: ExecuteRequest,
        execution_id: str = "",
        *,
        clearance: Callable[[], object] | None = None,
        accepted: bool = False,
    ) -> Execution:
        """Line up an execution, under a fresh id unless one is given.

        With a `clearance`, that is called when it is due, and it waits for its `release`. One that was `accepted` has
        its place in the queue. Raises ArgumentError, or SessionError if the session takes none.
        """
        if accepted:
            self._check_runnable(request)
        else:
            self.check(request)
        execution = Execution(execution_id or new_id(EXECUTION), self, request, self._loop)
        if clearance is not None:
            execution.hold(clearance)
        self._executions += 1
        self._lineup.add(execution)
        self._dispatch()
        return execution

    @property
    def stopped(self) -> set[str]:
        """Batches that have been stopped by an error, since somebody first asked."""
        if self._stopped is None:
            self._stopped = set()
        return self._stopped

    async def interrupt(self) -> bool:
        """Interrupt the running execution; False if there is none. The verdict tells how that went."""
        head = self._lineup.head
        if head is None or self._worker is None:
            return False
        self._end_execution(head, "interrupt")
        return True

    async def cancel(self, execution_id: str) -> bool:
        """Take an execution out of the queue, or interrupt it if it runs; False if it has ended or is not known."""
        queued = self._lineup.take_queued(execution_id)
        if queued is not None:
            _finish(queued, cancelled("on request"))
            return True
        sent = self._lineup.sent(execution_id)
        if sent is None or self._worker is None:
            return False
        if sent.state == "running":
            self._end_execution(sent, "interrupt")
        elif not sent.cancelled:
            sent.cancelled = True
            self._send_urgent(cancel(self.id, sent))
        return True

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
        send = worker.send_urgent if type in URGENT else worker.send
        return await self._questions.ask(send, self.id, type, body, timeout)

    @property
    def files(self) -> SessionFiles:
        """The files of its worker. Raises SessionError while there is none."""
        self._worker_or_error()
        assert self._files is not None
        return self._files

    @property
    def checkpoints(self) -> SessionCheckpoints:
        """The checkpoints of its worker. Raises SessionError while there is none."""
        self._worker_or_error()
        assert self._checkpoints is not None
        return self._checkpoints

    async def saved(self) -> None:
        """Wait until nothing is being saved or restored."""
        if self._checkpoints is not None:
            await self._checkpoints.settled()

    def info(self) -> SessionInfo:
        """The session as it is now."""
        worker = self._worker
        return SessionInfo(
            id=self.id,
            name=self.name,
            environment=self.options.environment,
            state=self.state,
            pid=worker.pid if worker else 0,
            epoch=self.epoch,
            executions=self._executions,
            queue=self._lineup.queued,
            memory=self._pulse.memory(worker.pid) if worker else 0,
            last_heartbeat=self._pulse.last,
            responsive=worker is not None and self._pulse.responsive,
            protocol=worker.agreement.version if worker else "",
            cpu=cpu_seconds(worker.pid) if worker else 0.0,
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
            for event in self._late.output(serial, stream, data):
                self.on_late(event)

    def on_event(self, message: Any, envelope: Envelope) -> None:
        """A message in its place."""
        self._inbox.on_event(message, envelope)

    def on_message(self, message: Any, envelope: Envelope) -> None:
        """Any other message."""
        self._inbox.on_message(message, envelope)

    def on_lost(self, loss: Loss) -> None:
        """The worker has ended, and all that it said has been told."""
        worker, self._worker = self._worker, None
        if self._points is not None:
            self._points.close()
            self._points = None
        if worker is not None:
            self._pools.give_back(worker)
        if self._state == "ready":
            self._state = "dead"
            if self.on_state is not None:
                self.on_state("dead", loss.message or loss.cause)
        self._pulse.stop()
        if self._files is not None:
            self._tasks.start(self._files.close())
        if self._checkpoints is not None:
            self._tasks.start(self._checkpoints.files.close())
        self._questions.fail(WorkerLost("worker_lost", f"the worker ended: {loss.message or loss.cause}"))
        sent, queued = self._lineup.take_all()
        for execution in sent:
            started = worker is not None and worker.started(execution.serial)
            _finish(execution, of_loss(loss, execution, started=started))
        for execution in queued:
            _finish(execution, unsent(loss))
        self._full.clear()

    # --- for the inbox ---

    def settle(self, execution: Execution) -> None:
        """The worker has given its verdict, and the execution has it."""
        self._lineup.settle(execution)
        self._late.remember(execution.serial, execution.id)
        if execution in self._full:
            self.on_room(execution)
        request = execution.request
        if execution.verdict is not None and execution.verdict.execution_count:
            counted = request.store_history and not request.quiet
            self.next_count = min(execution.verdict.execution_count + counted, MAX_COUNT)
        if request.stop_on_error and execution.verdict is not None and execution.verdict.verdict != "ok":
            if self._stopped is not None:
                self._stopped.add(request.batch)
            for other in self._lineup.take_batch(request.batch):
                _finish(other, cancelled(f"{execution.id} of the same batch did not end in ok"))
        self._dispatch()

    def on_pulse(self, message: Any) -> None:
        """The worker answered a heartbeat."""
        self._pulse.answered(message)

    # --- for the executions ---

    def on_started(self, execution: Execution, elapsed: float = 0.0) -> None:
        """The code runs, for so many seconds already: its time counts."""
        timeout = execution.request.timeout
        if timeout is not None:
            left = max(0.0, timeout - elapsed)
            execution.limit(left, lambda: self._end_execution(execution, "timeout"))

    def on_full(self, execution: Execution) -> None:
        """Its buffer is at the bound."""
        if self.options.backpressure == "error":
            execution.limit_exceeded = True
            self._end_execution(execution, "output_limit")
        elif self._worker is not None:
            self._full.add(execution)
            self._pulse.paused = True
            self._worker.pause()

    def on_room(self, execution: Execution) -> None:
        """There is room again."""
        self._full.discard(execution)
        if not self._full and self._worker is not None:
            self._pulse.paused = False
            self._worker.resume()

    def on_released(self) -> None:
        """An execution that was held may be sent."""
        self._dispatch()

    def on_late(self, event: Event) -> None:
        """An event that belongs to no stream any more."""
        if self.on_background is None:
            return
        try:
            self.on_background(event)
        except Exception:
            logger.exception("on_background of session %s failed", self.id)

    def send_input(self, request: str, answer: Answer) -> None:
        """Answer the worker's request for input."""
        self._send_urgent(input_reply(self.id, request, answer))

    # --- inside ---

    def _worker_or_error(self) -> Worker:
        if self._state == "ready" and self._worker is not None:
            return self._worker
        raise self._refusal()

    def _check_runnable(self, request: ExecuteRequest) -> None:
        check_request(request, self.options.message_bytes)
        self._worker_or_error()
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

    def _dispatch(self) -> None:
        """Send as much as the window allows; the oldest one at the worker runs."""
        worker = self._worker
        if worker is None or self._state != "ready":
            return
        while (execution := self._lineup.next_to_send(worker.next_serial())) is not None:
            if self._points is not None:
                self._points.begin(execution)
            worker.execute(execute(self.id, execution))
        head = self._lineup.head
        if head is None:
            return
        if head.cancelled:  # if the worker began it before it heard of that, it must be interrupted
            self._end_execution(head, "interrupt")
        else:
            head.begin()

    def _send_urgent(self, envelope: Envelope) -> None:
        if self._worker is not None:
            self._worker.send_urgent(envelope)

    def _end_execution(self, execution: Execution, reason: Reason) -> None:
        worker = self._worker
        if worker is None or execution.verdict is not None or execution.ladder is not None:
            return
        execution.ladder = Ladder(
            self._loop,
            execution,
            reason,
            self.options.interrupt_grace,
            lambda: worker.interrupt(execution.serial, timed_out=reason == "timeout"),
            lambda: worker.kill("exit"),
        )
        execution.ladder.start()

    async def _start_worker(self) -> None:
        worker = await self._open_worker()
        self._take_on(worker)
        self._late = self._inbox.late = Late()
        self.next_count = 1
        self._pulse.start()
        self._state = "ready"

    def _take_on(self, worker: Worker) -> None:
        self._worker = worker
        self._files = SessionFiles(worker.directory)
        self._checkpoints = SessionCheckpoints(self, worker.directory, worker.ready)
        self._watch = worker.watching
        if worker.survival is not None:
            self._points = Points(self._loop, worker)
            worker.on_full = self._points.relieve

    async def _open_worker(self) -> Worker:
        """A worker of the pool that is this session's; one that had ended unnoticed costs another try."""
        worker = await self._pools.take(self.options)
        try:
            await self._open(worker)
        except WorkerLost:
            if not worker.died.done():
                raise
        else:
            return worker
        worker = await self._pools.take(self.options)
        await self._open(worker)
        return worker

    async def _open(self, worker: Worker) -> None:
        limit = self.options.start_timeout
        try:
            async with asyncio.timeout(limit):
                options = self.options
                worker.drain_timeout = options.drain_timeout
                bounds = {"memory_bytes": options.memory_bytes, "max_processes": options.max_processes}
                await worker.open(self, opening(self.id, options, self.name, self.epoch), **bounds)
                if self._will is not None:
                    await self._will.leave(self, worker)
        except BaseException as error:
            self._pools.give_back(worker)
            with CancelScope(shield=True):
                await worker.gone.wait()
            if isinstance(error, TimeoutError):
                message = f"the session was not open within start_timeout={limit:g} s"
                raise WorkerLost("worker_start_timeout", message) from None
            raise

    async def _end_worker(self, cause: Literal["restart", "close"]) -> None:
        if self._files is not None:
            await self._files.close()
        if self._checkpoints is not None:
            await self._checkpoints.files.close()
        if self._worker is not None:
            self._worker.end(cause)
            self._pools.give_back(self._worker)
        if self._watch is not None:
            await asyncio.wait([self._watch])

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


def _finish(execution: Execution, ruling: Ruling) -> None:
    execution.finish(ruling.verdict, error=ruling.error)
