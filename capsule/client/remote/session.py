"""A session at a node elsewhere."""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

from capsule.client.remote.checkpoints import RemoteCheckpoints
from capsule.client.remote.execution import RemoteExecution
from capsule.client.remote.streams import RemoteFiles
from capsule.node.info import SessionInfo
from capsule.node.requests import check_request, check_same
from capsule.wire import buffers_of, execute_body
from capsule_protocol.errors import CapsuleError, SessionError
from capsule_protocol.ids import EXECUTION, SUBSHELL, new_id
from capsule_protocol.limits import DEFAULT_LIMITS

if TYPE_CHECKING:
    from collections.abc import Callable

    from capsule.client.remote.streams import Streams
    from capsule.events import Event
    from capsule.node.asking import InputError
    from capsule.node.execution import ExecuteRequest
    from capsule.node.session import State
    from capsule_bridge import SessionPromises

logger = logging.getLogger("capsule.client")

PATIENCE = 10.0
"""Seconds beyond what the node allows itself, until a request counts as unanswered."""
BEGIN_TIMEOUT = 3600.0
"""Seconds until a transfer has begun: the node may have to read much of a file first, to know where to go on."""
REQUEST_TIMEOUT = 60.0
"""Seconds for requests that have no time limit of their own."""


class Line(Protocol):
    """What a session asks of the link."""

    streams: Streams

    @property
    def connected(self) -> bool:
        """Whether there is a connection now."""

    async def request(
        self, kind: str, body: dict[str, Any], session: str = "", *, timeout: float, again: bool = True
    ) -> dict[str, Any]:
        """Send a request and wait for its answer; `again`: it may be sent once more on another connection."""

    def post(
        self, kind: str, body: dict[str, Any], session: str, execution: str = "", buffers: tuple[bytes, ...] = ()
    ) -> None:
        """Send what has no answer; while there is no connection, nothing."""

    def acknowledge(self, session: str, execution: str, number: int, *, soon: bool) -> None:
        """The events of an execution up to this number are dealt with."""

    def forget(self, session: RemoteSession) -> None:
        """The session is over."""


class RemoteSession:
    """What `capsule.node.session.Session` is to the client."""

    def __init__(self, line: Line, session_id: str, name: str, epoch: int, start_timeout: float) -> None:
        self.id = session_id
        self.name = name
        self.epoch = epoch
        self.on_background: Callable[[Event], None] | None = None
        self.on_state: Callable[[str, str], None] | None = None
        self.files = RemoteFiles(line.streams, session_id, self._ask_once)
        self.checkpoints = RemoteCheckpoints(line.streams, session_id, self._request)
        self._line = line
        self._start_timeout = start_timeout
        self._state: State = "ready"
        self._refusal: CapsuleError | None = None
        self._executions: dict[str, RemoteExecution] = {}
        self._waiting: dict[str, deque[RemoteExecution]] = {}

    def in_epoch(self, epoch: int) -> None:
        """The node says in which epoch the session is. What large files delay may be of an earlier one."""
        self.epoch = max(self.epoch, epoch)

    # --- for the client ---

    @property
    def state(self) -> State:
        """What it does, as far as the node has told."""
        return "busy" if self._state == "ready" and self._executions else self._state

    def submit(self, request: ExecuteRequest, execution_id: str = "") -> RemoteExecution:
        """Send an execution; what the node has against it is raised where its events are waited for.

        Raises ArgumentError for what is no request, SessionError if the session is closed.
        """
        self.check_open()
        check_request(request, DEFAULT_LIMITS.message_bytes)  # the node would take the message for no message at all
        execution = RemoteExecution(execution_id or new_id(EXECUTION), self, request, keyed=bool(execution_id))
        first = self._executions.get(execution.id)
        if first is None:
            self._send(execution)
        else:
            self._repeat(first, execution)
        return execution

    async def interrupt(self) -> bool:
        """Interrupt the running execution, or the question that is answered; False if there is neither."""
        return bool((await self._ask("interrupt", {}))["info"]["done"])

    async def cancel(self, execution_id: str) -> bool:
        """Take an execution out of the queue, or interrupt it; False if it has ended or is not known."""
        return bool((await self._ask("cancel", {"execution": execution_id}))["info"]["done"])

    async def cancel_all(self) -> int:
        """Take out of the queues all that waits, and interrupt what runs: how many that were.

        It is not asked for again on a new connection: it would be behind what has come later.
        """
        return int((await self._ask("cancel", {"execution": ""}, again=False))["info"].get("count", 0))

    async def restart(self) -> None:
        """A new worker."""
        reply = await self._ask("restart", {}, self._start_timeout + PATIENCE, again=False)
        self.epoch, self._state = reply["epoch"], "ready"

    async def detach(self) -> None:
        """Leave the session to itself at the node."""
        await self._ask("detach", {})
        self.end(SessionError("session_closed", f"this client has detached from the session {self.name!r}"))

    async def leave(self, does: str) -> None:
        """Have it no more, which goes on; `does`: what this client does with it so far. Idempotent."""
        if self._state == "closed":
            return
        try:
            if self._line.connected:
                await self._line.request("detach", {}, self.id, timeout=REQUEST_TIMEOUT, again=False)
        except CapsuleError as error:
            logger.info("session %s could not be left: %s", self.id, error)  # the connection ends it
        self.end(SessionError("session_closed", f"this client {does} the session {self.name!r} no more"))

    async def close(self) -> None:
        """End the session at the node. Idempotent."""
        if self._state == "closed":
            return
        self._state = "closed"
        try:
            if self._line.connected:
                await self._line.request("close", {}, self.id, timeout=REQUEST_TIMEOUT, again=False)
        except CapsuleError as error:
            logger.info("session %s could not be closed: %s", self.id, error)  # the node closes it by itself
        self.end(SessionError("session_closed", f"the session {self.name!r} has been closed"))

    async def ask(self, type: str, body: dict[str, Any], timeout: float | None = None) -> dict[str, Any]:  # noqa: A002 - the protocol's word
        """Ask the worker something between two executions; on another connection again, if that changes nothing."""
        if type == "subshell" and body.get("action") == "open" and not body.get("subshell"):
            body = {**body, "subshell": new_id(SUBSHELL)}  # it is opened once, however often it is asked for
        again = type != "debug" and (type != "subshell" or body.get("action") != "close")
        return await self._ask(type, body, REQUEST_TIMEOUT if timeout is None else timeout, again=again)

    async def info(self) -> SessionInfo:
        """The session as it is now."""
        info = (await self._ask("info", {}))["info"]
        return SessionInfo(**{**info, "promises": _promises(info.get("promises"))})

    # --- for its executions ---

    def acknowledge(self, execution: str, number: int, *, soon: bool) -> None:
        """The events up to this one are dealt with."""
        self._line.acknowledge(self.id, execution, number, soon=soon)

    def send_input(self, execution: str, request: str, value: str | None, error: InputError | None) -> None:
        """Answer a request for input."""
        body = {"request": request, "value": value, "error": error}
        known = self._executions.get(execution)
        if known is not None:
            known.answers.append(body)
        self._line.post("input_reply", body, self.id, execution)

    # --- for the link ---

    def attaching(self) -> dict[str, Any]:
        """What to say on a new connection."""
        return {"name": self.id}

    def accepted(self, execution: str) -> None:
        """The node has the execution."""
        known = self._executions.get(execution)
        if known is not None:
            known.accept()

    def add(self, event: Event) -> None:
        """An event of an execution."""
        known = self._executions.get(event.execution_id)
        if known is not None:
            known.add(event)
            if known.state == "done":
                self._next(known.id)

    def background(self, event: Event) -> None:
        """An event of none."""
        if self.on_background is not None:
            self.on_background(event)

    def refused(self, execution: str, error: CapsuleError) -> None:
        """The node does not have the execution, or no longer for this client."""
        known = self._executions.get(execution)
        if known is None:
            return
        if error.code == "execution_unknown" and not known.accepted:
            self._send(known)  # the request was lost with the connection
            return
        known.fail(error)
        self._next(execution)

    def changed(self, state: State, reason: str) -> None:
        """The node tells of another state."""
        if state == "closed":
            self.end(CapsuleError.from_dict({"code": reason or "session_closed", "message": _over(self.name, reason)}))
        elif self._state != "closed":
            self._state = state
            if self.on_state is not None:
                self.on_state(state, reason)

    def resume(self) -> None:
        """The link is there again, and the session attached: ask for what is missing."""
        for execution in list(self._executions.values()):
            self._line.post("resume", {"after": execution.received}, self.id, execution.id)
            for body in execution.answers:  # one of them may be lost; the node knows which it has
                self._line.post("input_reply", body, self.id, execution.id)

    def end(self, error: CapsuleError) -> None:
        """Nothing comes any more."""
        self._state, self._refusal = "closed", error
        on_state, self.on_state = self.on_state, None
        if on_state is not None:
            on_state("closed", error.code)
        for execution in (*self._executions.values(), *(one for line in self._waiting.values() for one in line)):
            execution.fail(error)
        self._executions.clear()
        self._waiting.clear()
        self._line.forget(self)

    # --- inside ---

    def _send(self, execution: RemoteExecution) -> None:
        self._executions[execution.id] = execution
        body = execute_body(execution.request)
        if execution.request.timeout is not None:
            body["timeout"] = execution.request.timeout
        if execution.keyed:
            body["key"] = execution.id
        self._line.post("execute", body, self.id, execution.id, buffers_of(execution.request))

    def _repeat(self, first: RemoteExecution, execution: RemoteExecution) -> None:
        """The same key: it is asked for again when the first has ended here. What is another request cannot be had."""
        try:
            check_same(first.request, execution.request, execution.id, execution.id)
        except SessionError as error:
            execution.fail(error)
        else:
            self._waiting.setdefault(execution.id, deque()).append(execution)

    def _next(self, execution: str) -> None:
        """One has ended; another with the same key may wait for its turn."""
        del self._executions[execution]
        waiting = self._waiting.get(execution)
        if waiting:
            self._send(waiting.popleft())
        else:
            self._waiting.pop(execution, None)

    async def _ask(
        self, kind: str, body: dict[str, Any], timeout: float = REQUEST_TIMEOUT, *, again: bool = True
    ) -> dict[str, Any]:
        self.check_open()
        return await self._line.request(kind, body, self.id, timeout=timeout, again=again)

    async def _ask_once(self, kind: str, body: dict[str, Any]) -> dict[str, Any]:
        return await self._ask(kind, body, BEGIN_TIMEOUT, again=kind == "files")

    async def _request(self, kind: str, body: dict[str, Any], timeout: float) -> dict[str, Any]:
        return await self._ask(kind, body, timeout, again=False)

    def check_open(self) -> None:
        """Raise why nothing comes any more, if that is so."""
        if self._refusal is not None:
            raise self._refusal
        if self._state == "closed":
            raise SessionError("session_closed", f"session {self.name!r} has been closed")


def _over(name: str, reason: str) -> str:
    return f"the session {name!r} is over for this client" + (f": {reason}" if reason else "")


def _promises(info: dict[str, Any] | None) -> SessionPromises | None:
    if info is None:
        return None
    from capsule_bridge import SessionPromises  # late: a client has no other need of it

    return SessionPromises(**info)
