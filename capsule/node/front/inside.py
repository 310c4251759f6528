"""What serves Jupyter's kernels as a client of the front in its own process: with calls in the place of messages.

A session that it opens is one of the front's like any other: it counts, others can look on or take it over, and where
executions are written down, its are. Only no connection can be lost, and nothing is packed, checked and unpacked.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from capsule.client.remote.execution import RemoteExecution
from capsule.events import Finished, Started
from capsule.node.auth.principals import LOCAL
from capsule.node.front.following import Following
from capsule.wire import buffers_of, execute_body, size_of, weight
from capsule_protocol.envelope import Envelope
from capsule_protocol.errors import CapsuleError, SessionError
from capsule_protocol.ids import EXECUTION, new_id
from capsule_protocol.messages import parse

if TYPE_CHECKING:
    from collections.abc import Callable

    from capsule.config import SessionOptions
    from capsule.events import Event
    from capsule.node.asking import InputError
    from capsule.node.execution import ExecuteRequest
    from capsule.node.front.desk import Desk
    from capsule.node.front.hosted import Hosted
    from capsule.node.front.log import EventLog
    from capsule.node.info import SessionInfo

logger = logging.getLogger("capsule.front")


class InsideNode:
    """Opens sessions of the node's own user; who has them closes them."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def open_session(self, options: SessionOptions) -> InsideSession:
        """A ready session. Raises what the node says; a caller that is cancelled leaves none behind."""
        if self._desk.draining:
            raise SessionError("node_closed", "the node takes no more sessions: it is about to end")
        self._desk.gate.admit(LOCAL, "open", 0)
        registry = self._desk.registry
        hosted = await self._desk.tasks.run_or_undo(registry.open(LOCAL.name, "", options, None), registry.close)
        return InsideSession(self._desk, hosted)


class InsideSession:
    """What `Session` is to the client, as far as a kernel needs it."""

    def __init__(self, desk: Desk, hosted: Hosted) -> None:
        self.id = hosted.session.id
        self.on_background: Callable[[Event], None] | None = None
        self.on_state: Callable[[str, str], None] | None = None
        self._desk = desk
        self._hosted = hosted
        self._refusal: SessionError | None = None
        self._executions: dict[str, RemoteExecution] = {}
        self._seat = _Seat(desk, self, hosted)

    # --- for the client ---

    def submit(self, request: ExecuteRequest) -> RemoteExecution:
        """Have it executed; what the node has against it is raised where its events are waited for.

        Raises SessionError if the session is over.
        """
        self._check_open()
        execution = RemoteExecution(new_id(EXECUTION), self, request, keyed=False)
        self._executions[execution.id] = execution
        self._seat.execute(request, execution.id)
        return execution

    async def cancel(self, execution: str) -> bool:
        """Take an execution out of the queue, or interrupt it; False if it has ended or is not known."""
        self._check_open()
        return await self._hosted.cancel(execution)

    def interrupt_question(self) -> bool:
        """Interrupt the question that the main shell answers; False if it runs something, or does nothing."""
        return self._refusal is None and self._hosted.session.interrupt_question()

    async def interrupt_sharer(self) -> bool:
        """Interrupt what another client, who shares the session, runs in it; False if nothing of the kind runs."""
        self._check_open()
        return await self._hosted.interrupt_sharer()

    async def ask(self, type: str, body: dict[str, Any]) -> dict[str, Any]:  # noqa: A002 - the protocol's word
        """Ask the worker something between two executions. Raises CapsuleError."""
        self._check_open()
        self._desk.gate.admit(LOCAL, type, weight(body))
        message = parse(Envelope(type, body))
        session = self._hosted.session
        session.powers.submitted("")  # to complete, inspect or debug runs code
        answer = await session.ask(type, message.model_dump(), self._desk.config.question_timeout)
        self._desk.gate.carried(LOCAL, weight(answer))
        return answer

    def info(self) -> SessionInfo:
        """The session as it is now."""
        self._check_open()
        return self._hosted.session.info()

    async def close(self) -> None:
        """End the session. Idempotent; goes on to its end if the caller is cancelled."""
        if self._refusal is not None:
            return
        try:
            await self._desk.registry.close(self._hosted)
        except CapsuleError as error:
            logger.info("session %s could not be closed: %s", self.id, error)
        finally:
            self._seat.leave()
            self.end(SessionError("session_closed", f"the session {self._hosted.session.name!r} has been closed"))

    # --- for its executions ---

    def acknowledge(self, execution: str, number: int, *, soon: bool) -> None:  # noqa: ARG002 - at once in any case
        """The events up to this one are dealt with."""
        self._seat.acknowledge(execution, number)

    def send_input(self, execution: str, request: str, value: str | None, error: InputError | None) -> None:
        """Answer a request for input. Raises ArgumentError if nobody waits for that."""
        log = self._hosted.logs.get(execution)
        if log is not None:
            log.execution.reply_input(request, value, error, self._seat.turn_down)

    # --- for its seat ---

    def add(self, execution: str, event: Event) -> None:
        """An event of an execution."""
        known = self._executions.get(execution)
        if known is not None:
            known.add(event)
            if isinstance(event, Finished):
                del self._executions[execution]

    def refused(self, execution: str, error: CapsuleError) -> None:
        """The node does not have the execution."""
        known = self._executions.pop(execution, None)
        if known is not None:
            known.fail(error)

    def background(self, event: Event) -> None:
        """An event of none."""
        if self.on_background is not None:
            self.on_background(event)

    def changed(self, state: str, reason: str) -> None:
        """The session is in another state."""
        if self.on_state is not None:
            self.on_state(state, reason)

    def end(self, error: SessionError) -> None:
        """Nothing comes any more."""
        if self._refusal is not None:
            return
        self._refusal = error
        on_state, self.on_state = self.on_state, None
        if on_state is not None:
            on_state("closed", error.code)
        executions, self._executions = self._executions, {}
        for execution in executions.values():
            execution.fail(error)

    def _check_open(self) -> None:
        if self._refusal is not None:
            raise self._refusal


class _Seat:
    """The place of a session's reader: what a connection is for the sessions of a client elsewhere."""

    owner = LOCAL.name

    def __init__(self, desk: Desk, inside: InsideSession, hosted: Hosted) -> None:
        self.client = new_id("c_")
        self._desk = desk
        self._inside = inside
        self._hosted = hosted
        self._following = Following(desk, self)
        hosted.attach(self)

    def execute(self, request: ExecuteRequest, execution: str) -> None:
        """Have it executed, if there is no quota against it."""
        try:
            size = weight(execute_body(request)) + sum(map(len, buffers_of(request)))
            self._desk.gate.admit(LOCAL, "execute", size)
        except SessionError as error:
            self.refuse(error, self._hosted.session.id, execution, "execute")
        else:
            self._following.execute(replace(request, client=self.client), self._hosted.session.id, execution)

    def acknowledge(self, execution: str, number: int) -> None:
        """The events up to this one are dealt with."""
        self._hosted.acknowledge(execution, number, self.client)
        self._following.acknowledge(execution, number)

    def turn_down(self, error: SessionError) -> None:
        """An answer does not count."""
        self._desk.gate.refused(LOCAL, "input_reply", error)

    def leave(self) -> None:
        """It reads no more."""
        self._following.leave(self._hosted)

    # --- as reader ---

    def on_event(self, session: str, log: EventLog, event: Event) -> None:
        """An event of an execution."""
        self._following.on_event(session, log, event)

    def on_background(self, _session: str, event: Event) -> None:
        """An event of none."""
        self._desk.gate.carried(LOCAL, size_of(event))
        self._inside.background(event)

    def on_state(self, _session: str, state: str, reason: str) -> None:
        """The session is in another state."""
        self._inside.changed(state, reason)

    def on_closed(self, _hosted: Hosted, error: SessionError) -> None:
        """The session is over for this reader; the error says why."""
        self.leave()
        self._inside.end(error)

    # --- for the executions that it follows ---

    def session(self, _session: str) -> Hosted:
        """The one that it reads."""
        return self._hosted

    def reads(self, _session: str) -> bool:
        """Whether it reads the session."""
        return self._hosted.reader is self

    def accept(self, session: str, execution: str, started: Started | None) -> None:
        """The node has an execution."""
        if started is not None:
            self.tell(session, execution, started)

    def tell(self, _session: str, execution: str, event: Event) -> None:
        """An event of an execution that it follows."""
        self._desk.gate.carried(LOCAL, size_of(event))
        self._inside.add(execution, event)

    def refuse(self, error: CapsuleError, _session: str, execution: str, action: str) -> None:
        """The node does not take an execution."""
        self._desk.gate.refused(LOCAL, action, error)
        self._inside.refused(execution, error)

    def give_up(self, why: str) -> None:
        """What the node has done wrong costs the session its reader, and so the session: nobody else would close it."""
        self._desk.tasks.start(self._desk.registry.close(self._hosted))
        self.on_closed(self._hosted, SessionError("internal_error", why))
