"""One connection of a client: what it asks for is done, and what it waits for is sent to it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Protocol

from capsule.config import SessionOptions
from capsule.events import Finished, Gap
from capsule.node.execution import ExecuteRequest
from capsule.node.questions import ALLOWED as QUESTIONS
from capsule.wire import Wired, to_message
from capsule_protocol.connection import Connection
from capsule_protocol.envelope import Envelope
from capsule_protocol.errors import ArgumentError, CapsuleError, LocalProtocolError, RemoteProtocolError, SessionError
from capsule_protocol.framing import NEED_DATA
from capsule_protocol.messages.execution import Error

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from capsule.config import ServeConfig
    from capsule.events import Event
    from capsule.node.front.hosted import Hosted
    from capsule.node.front.log import EventLog
    from capsule.node.front.registry import Registry
    from capsule.node.node import Node
    from capsule.node.tasks import Tasks
    from capsule_protocol.envelope import Frames
    from capsule_protocol.limits import Limits

FEATURES = frozenset({"introspection", "progress", "stdin", "resume"})
"""What this node can do for a client."""
MAX_REQUESTS = 256
"""Requests of one connection that may be under way at once; executions are not among them."""


class Desk(Protocol):
    """What a connection needs of the front."""

    node: Node
    config: ServeConfig
    registry: Registry
    tasks: Tasks
    draining: bool

    def send(self, peer: Peer, frames: Frames) -> None:
        """Send to the other end; one that takes nothing any more is dropped."""

    def greeted(self, peer: Peer) -> None:
        """It said which client it is: an older connection of the same one is no more."""

    def drop(self, peer: Peer) -> None:
        """Forget it."""

    def offended(self, peer: Peer, error: RemoteProtocolError) -> None:
        """It sent what cannot be read, or was not due."""


class Peer:
    """Made by the first message of a connection. `client` is known from its greeting on, `owner` from its carrier."""

    def __init__(
        self, desk: Desk, identity: bytes, owner: str, limits: Limits, refusal: CapsuleError | None = None
    ) -> None:
        self.identity = identity
        self.owner = owner
        self.client = ""
        self.seen = 0.0
        self.gone = False
        self._desk = desk
        self._refusal = refusal
        self._connection = Connection("client", "node", features=FEATURES, limits=limits)
        self._attached: dict[str, Hosted] = {}
        self._following: set[str] = set()
        self._requests = 0
        self._handlers: dict[str, Callable[[Any, Envelope], None]] = {
            "hello": self._hello,
            "execute": self._execute,
            "resume": self._resume,
            "event_ack": self._event_ack,
            "input_reply": self._input_reply,
            "heartbeat": self._heartbeat,
            "shutdown": self._shutdown,
            "stream_open": self._unsupported,
        }
        self._requests_by_kind: dict[str, Callable[[Any, Envelope], Coroutine[Any, Any, None]]] = {
            "open": self._open,
            "close": self._close,
            "attach": self._attach,
            "detach": self._detach,
            "restart": self._restart,
            "info": self._info,
            "interrupt": self._interrupt,
            "cancel": self._cancel,
            **dict.fromkeys(QUESTIONS, self._ask),
        }

    def __repr__(self) -> str:
        return f"<Peer {self.client[:8] or 'unknown'} of {self.owner} sessions={len(self._attached)}>"

    def take(self, frames: list[Any]) -> None:
        """Act on one message. A breach of the protocol ends the connection; what cannot be read is answered."""
        self._connection.receive(frames)
        try:
            received = self._connection.next_event()
        except RemoteProtocolError as error:
            self._offence(error)
            return
        assert received is not NEED_DATA
        message, envelope = received
        handler = self._handlers.get(envelope.type)
        if handler is not None:
            handler(message, envelope)
        elif (request := self._requests_by_kind.get(envelope.type)) is not None:
            self._start(request, message, envelope)
        else:
            self._unsupported(message, envelope)

    def lose(self) -> None:
        """The connection is over: its sessions wait for their client to come back."""
        self.gone = True
        for hosted in self._attached.values():
            hosted.lose(self, self._desk.config.reconnect_timeout)

    def say_goodbye(self) -> None:
        """The node ends."""
        with suppress(LocalProtocolError):  # it has not greeted
            self._say("shutdown", {"restart": False})

    # --- for the sessions ---

    def on_event(self, session: str, log: EventLog, event: Event) -> None:
        """An event of an execution that this connection follows."""
        execution = log.execution.id
        if execution in self._following:
            self._tell(session, execution, event)

    def on_background(self, session: str, event: Event) -> None:
        """An event of none."""
        kind, body, buffers = to_message(event)
        self._transmit(Envelope(kind, body, "", session, event.execution_id, 0, 0.0, buffers))

    def on_state(self, session: str, state: str, reason: str) -> None:
        """The session is in another state."""
        self._say("status", {"state": state, "reason": reason[:1000]}, session=session)

    def on_taken(self, hosted: Hosted) -> None:
        """Another connection of the owner's reads from now on."""
        session = hosted.session.id
        del self._attached[session]
        error = SessionError("session_taken", f"another client has taken the session {hosted.session.name!r} over")
        for execution in hosted.logs.keys() & self._following:
            self._following.discard(execution)
            self._refuse(error, session, execution)
        self._say("status", {"state": "closed", "reason": error.code}, session=session)

    # --- what is done at once ---

    def _hello(self, message: Any, _envelope: Envelope) -> None:
        if self._refusal is not None:
            self._say("error", Error.answer(self._refusal).model_dump())
            self._desk.drop(self)
            return
        self.client = message.client
        self._send(self._connection.send(self._connection.welcome()))
        self._desk.greeted(self)

    def _execute(self, message: Any, envelope: Envelope) -> None:
        execution = envelope.execution
        request = ExecuteRequest(
            message.code,
            message.timeout,
            message.quiet,
            message.store_history,
            message.allow_input,
            message.stop_on_error,
            message.batch,
            message.cell,
        )
        try:
            if self._desk.draining:
                raise SessionError("node_closed", "the node takes no more executions: it is about to end")
            hosted = self._session(envelope.session)
            # Followed from its acknowledgement on, which precedes all events: those come from a task of their own.
            log, _ = hosted.submit(request, execution, keep=message.key is not None)
        except CapsuleError as error:
            self._refuse(error, envelope.session, execution)
            return
        self._follow(envelope.session, log, 0)

    def _resume(self, message: Any, envelope: Envelope) -> None:
        try:
            log = self._session(envelope.session).logs.get(envelope.execution)
            if log is None:
                raise SessionError("execution_unknown", f"there is no execution {envelope.execution[:64]!r}")
        except CapsuleError as error:
            self._refuse(error, envelope.session, envelope.execution)
            return
        self._follow(envelope.session, log, message.after)

    def _follow(self, session: str, log: EventLog, after: int) -> None:
        execution = log.execution.id
        self._say("ack", {}, session=session, execution=execution)
        missing, events = log.since(after)
        if missing:
            self._tell(session, execution, Gap(execution, after + missing, missing))
        self._following.add(execution)
        log.loosen(False)  # noqa: FBT003 - positional only
        for event in events:
            self._tell(session, execution, event)

    def _event_ack(self, message: Any, envelope: Envelope) -> None:
        hosted = self._attached.get(envelope.session)
        if hosted is not None:
            for execution, number in message.executions.items():
                hosted.acknowledge(execution, number)

    def _input_reply(self, message: Any, envelope: Envelope) -> None:
        hosted = self._attached.get(envelope.session)
        log = hosted.logs.get(envelope.execution) if hosted is not None else None
        if log is not None:
            try:
                log.execution.reply_input(message.request, message.value, message.error)
            except ArgumentError:
                return  # it was answered, or timed out, while this was on its way

    def _heartbeat(self, message: Any, _envelope: Envelope) -> None:
        self._say("heartbeat", {"number": message.number})

    def _shutdown(self, _message: Any, _envelope: Envelope) -> None:
        self._say("shutdown", {"restart": False})
        self._desk.drop(self)

    def _unsupported(self, _message: Any, envelope: Envelope) -> None:
        error = SessionError("unsupported", f"this node does not do {envelope.type!r}")
        self._fail(error, envelope)

    # --- what takes time ---

    def _start(
        self, request: Callable[[Any, Envelope], Coroutine[Any, Any, None]], message: Any, envelope: Envelope
    ) -> None:
        if self._requests >= MAX_REQUESTS:
            error = SessionError("too_many_requests", f"the client has {MAX_REQUESTS} requests under way already")
            self._fail(error, envelope)
            return
        self._requests += 1
        self._desk.tasks.start(self._run(request, message, envelope))

    async def _run(
        self, request: Callable[[Any, Envelope], Coroutine[Any, Any, None]], message: Any, envelope: Envelope
    ) -> None:
        try:
            await request(message, envelope)
        except CapsuleError as error:
            self._fail(error, envelope)
        finally:
            self._requests -= 1

    async def _open(self, message: Any, envelope: Envelope) -> None:
        if self._desk.draining:
            raise SessionError("node_closed", "the node takes no more sessions: it is about to end")
        if len(message.files) != len(envelope.buffers):
            raise ArgumentError("files", "are not as many as their contents", allowed="a buffer for each name")
        options = SessionOptions.build(
            **(message.options.model_extra or {}),
            files={name: bytes(data) for name, data in zip(message.files, envelope.buffers, strict=True)},
            max_open_files=message.options.max_open_files,
            environment=message.environment,
            name=message.name or None,
            env=message.env,
            cwd=message.cwd,
            argv=tuple(message.argv),
            path=tuple(message.path),
            out_cache=message.options.out_cache,
            source_cache=message.options.source_cache,
        )
        hosted = await self._desk.registry.open(self.owner, self.client, options, message.key)
        self._take_over(hosted)
        self._ready(hosted, envelope)

    async def _attach(self, message: Any, envelope: Envelope) -> None:
        hosted = self._desk.registry.find(self.owner, message.name)
        self._take_over(hosted)
        self._ready(hosted, envelope)

    async def _detach(self, _message: Any, envelope: Envelope) -> None:
        hosted = self._session(envelope.session)
        del self._attached[envelope.session]
        self._following -= hosted.logs.keys()
        hosted.detach(self._desk.config.detached_ttl)
        self._answer("status", {"state": hosted.session.state}, envelope)

    async def _close(self, _message: Any, envelope: Envelope) -> None:
        hosted = self._session(envelope.session)
        await self._desk.registry.close(hosted)
        self._attached.pop(envelope.session, None)
        self._answer("status", {"state": "closed"}, envelope)

    async def _restart(self, _message: Any, envelope: Envelope) -> None:
        hosted = self._session(envelope.session)
        await hosted.session.restart()
        self._ready(hosted, envelope)

    async def _info(self, _message: Any, envelope: Envelope) -> None:
        if envelope.session:
            info: dict[str, Any] = asdict(self._session(envelope.session).session.info())
        else:
            info = asdict(self._desk.node.info())
        self._answer("info_reply", {"info": info}, envelope)

    async def _interrupt(self, _message: Any, envelope: Envelope) -> None:
        done = await self._session(envelope.session).session.interrupt()
        self._answer("info_reply", {"info": {"done": done}}, envelope)

    async def _cancel(self, message: Any, envelope: Envelope) -> None:
        done = await self._session(envelope.session).session.cancel(message.execution)
        self._answer("info_reply", {"info": {"done": done}}, envelope)

    async def _ask(self, message: Any, envelope: Envelope) -> None:
        session = self._session(envelope.session).session
        reply = await session.ask(envelope.type, message.model_dump(), self._desk.config.question_timeout)
        self._answer(f"{envelope.type}_reply", reply, envelope)

    # --- inside ---

    def _session(self, session: str) -> Hosted:
        """A session that this connection reads. Raises SessionError."""
        hosted = self._attached.get(session)
        if hosted is None:
            self._desk.registry.get(self.owner, session)
            raise SessionError("session_taken", "another client reads this session, or none: attach to it first")
        return hosted

    def _take_over(self, hosted: Hosted) -> None:
        self._attached[hosted.session.id] = hosted
        hosted.attach(self)
        if self.gone:
            hosted.lose(self, self._desk.config.reconnect_timeout)

    def _ready(self, hosted: Hosted, envelope: Envelope) -> None:
        info = hosted.session.info()
        body = {"pid": info.pid, "name": info.name, "environment": info.environment, "epoch": info.epoch}
        self._say("ready", body | {"reply_to": envelope.id}, session=info.id)

    def _tell(self, session: str, execution: str, event: Event) -> None:
        """Send an event; one that is over a limit of the link is told to be missing, or is the reason of an error."""
        kind, body, buffers = to_message(event)
        try:
            self._transmit(Envelope(kind, body, "", session, execution, event.sequence, 0.0, buffers))
        except LocalProtocolError as error:
            if error.code != "message_too_large":
                raise
            kind, body, _ = _in_place_of(event, error)
            self._transmit(Envelope(kind, body, "", session, execution, event.sequence))
        if isinstance(event, Finished):
            self._following.discard(execution)

    def _answer(self, kind: str, body: dict[str, Any], envelope: Envelope) -> None:
        self._say(kind, body | {"reply_to": envelope.id}, session=envelope.session)

    def _fail(self, error: CapsuleError, envelope: Envelope) -> None:
        self._say("error", Error.answer(error, envelope.id).model_dump(), session=envelope.session)

    def _refuse(self, error: CapsuleError, session: str, execution: str) -> None:
        """The answer to an execution that is not accepted, or is another client's now."""
        body = Error.answer(error).model_dump()
        number = self._connection.executions.next_number("error", execution)
        self._transmit(Envelope("error", body, "", session, execution, number))

    def _offence(self, error: RemoteProtocolError) -> None:
        """What cannot be read is answered; who breaks the tables, or does not even greet, is forgotten."""
        self._desk.offended(self, error)
        with suppress(LocalProtocolError):  # both have said goodbye
            self._say("error", Error.answer(error).model_dump())
        if self._connection.failed is not None or self._connection.state in {"new", "greeting"}:
            self._desk.drop(self)

    def _say(self, kind: str, body: dict[str, Any], *, session: str = "", execution: str = "") -> None:
        self._transmit(Envelope(kind, body, "", session, execution))

    def _transmit(self, envelope: Envelope) -> None:
        if not self.gone:
            self._send(self._connection.transmit(envelope))

    def _send(self, frames: Frames) -> None:
        self._desk.send(self, frames)


def _in_place_of(event: Event, error: LocalProtocolError) -> Wired:
    if not isinstance(event, Finished):
        return Wired("gap", {"missing": 1})
    body = {"verdict": "error", "name": "ResultTooLarge", "message": error.message, "code": "result_too_large"}
    return Wired("error", body | {"execution_count": event.execution_count, "duration": event.duration})
