"""One connection of a client: what it asks for is done, and what it waits for is sent to it."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from capsule.events import Finished
from capsule.node.auth.principals import ANONYMOUS
from capsule.node.front.following import Following
from capsule.node.front.requests import Requests
from capsule.node.front.streams import Streams
from capsule.node.questions import ALLOWED as QUESTIONS
from capsule.node.questions import URGENT
from capsule.seen import Seen
from capsule.text import one_line
from capsule.wire import Wired, to_message
from capsule_protocol.connection import Connection
from capsule_protocol.envelope import Envelope
from capsule_protocol.errors import (
    ArgumentError,
    CapsuleError,
    LocalProtocolError,
    NodeError,
    RemoteProtocolError,
    SessionError,
)
from capsule_protocol.framing import NEED_DATA
from capsule_protocol.messages.execution import Error
from capsule_protocol.messages.session import Attach
from capsule_protocol.states import BULK

if TYPE_CHECKING:
    from collections.abc import Callable

    from capsule.events import Event, Started
    from capsule.node.auth.principals import Principal
    from capsule.node.front.desk import Desk
    from capsule.node.front.hosted import Hosted
    from capsule.node.front.log import EventLog
    from capsule.node.front.watch import Watch
    from capsule_protocol.envelope import Buffer
    from capsule_protocol.limits import Limits

logger = logging.getLogger("capsule.front")

OF_ONES_OWN = frozenset({"execute", "resume", "event_ack", "input_reply", "cancel", "info", "detach"})
SHARED = OF_ONES_OWN | (QUESTIONS - URGENT)
"""What may be asked of a session that is shared: it concerns the client's own executions, or changes nothing."""
FEATURES = frozenset({"introspection", "comms", "progress", "stdin", "resume", "streams"})
"""What this node can do for a client."""


class Peer:
    """Made with a connection. `client` is known from its greeting on, `principal` from its carrier, or from a token."""

    def __init__(self, desk: Desk, principal: Principal, limits: Limits, refusal: CapsuleError | None = None) -> None:
        self.principal = principal
        self.encrypted = True  # or a Unix socket: a token may be said here
        self.client = ""
        self.seen = 0.0
        self.gone = False
        self._desk = desk
        self._refusal = refusal
        self._connection = Connection("client", "node", features=FEATURES, limits=limits)
        self._attached: dict[str, Hosted] = {}
        self._shared: set[str] = set()  # those of them that another client drives
        self._watches: dict[str, Watch] = {}
        self._seen = Seen()
        self.streams = Streams(self, desk.tasks)
        self._requests = Requests(desk, self)
        self._following = Following(desk, self)
        self._handlers: dict[str, Callable[[Any, Envelope], None]] = {
            "hello": self._hello,
            "event_ack": self._event_ack,
            "input_reply": self._input_reply,
            "heartbeat": self._heartbeat,
            "shutdown": self._shutdown,
            **self._following.handlers,
            **self.streams.handlers,
        }

    def __repr__(self) -> str:
        return f"<Peer {one_line(self.client[:8]) or 'unknown'} of {self.owner} sessions={len(self._attached)}>"

    @property
    def owner(self) -> str:
        """To whom its sessions belong."""
        return self.principal.name

    @property
    def greeted(self) -> bool:
        """Whether its client has said who it is, and may be here."""
        return self._connection.state == "active"

    def take(self, frames: list[bytes]) -> None:
        """Act on one message. A breach of the protocol ends the connection; what cannot be read is answered."""
        self._connection.receive(frames)
        try:
            received = self._connection.next_event()
        except RemoteProtocolError as error:
            self.offend(error)
            return
        assert received is not NEED_DATA
        message, envelope = received
        if self._connection.state == "closed":  # it has refused to greet
            self._desk.drop(self)
            return
        handler = self._handlers.get(envelope.type)
        try:
            kind = "watch" if isinstance(message, Attach) and message.watch else envelope.type
            self._desk.gate.admit(self.principal, kind, sum(map(len, frames)))
        except SessionError as error:
            self._turn_down(error, envelope)
            return
        if envelope.session in self._shared and envelope.type not in SHARED:
            why = f"this client shares the session: {envelope.type!r} is for whoever drives it"
            self._turn_down(SessionError("session_shared", why), envelope)
        elif handler is not None:
            handler(message, envelope)
        elif not self._requests.start(message, envelope):
            self.fail(SessionError("unsupported", f"this node does not do {envelope.type!r}"), envelope)

    def offend(self, error: RemoteProtocolError) -> None:
        """What cannot be read is answered; who breaks the tables, or does not even greet, is forgotten."""
        self._desk.offended(self, error)
        with suppress(LocalProtocolError):  # both have said goodbye
            self._say("error", Error.answer(error).model_dump())
        if self._connection.failed is not None or self._connection.state != "active":
            self._desk.drop(self)

    def lose(self) -> None:
        """The connection is over: its sessions wait for their client to come back."""
        self.gone = True
        self.streams.lose()
        self._requests.checkpoints.lose()
        self._following.lose()
        for hosted in self._attached.values():
            hosted.lose(self, self._desk.config.reconnect_timeout)
            hosted.unshare(self)
        for watch in self._watches.values():
            watch.hosted.unwatch(watch)

    async def settled(self) -> None:
        """Wait until no file is on its way to it, or from it, nor about to be fetched."""
        await self._requests.checkpoints.fetched()
        await self.streams.settled()

    def say_goodbye(self) -> None:
        """The node ends."""
        with suppress(LocalProtocolError):  # it has not greeted
            self._say("shutdown", {"restart": False})

    def deny(self, error: CapsuleError, action: str = "connect") -> None:
        """Have the connection told that it may not be here, and end it."""
        self._desk.gate.refused(self.principal, action, error)
        with suppress(LocalProtocolError):
            self._say("error", Error.answer(error).model_dump())
        self._desk.drop(self)

    # --- for the sessions ---

    def on_event(self, session: str, log: EventLog, event: Event) -> None:
        """An event of an execution that this connection follows."""
        self._following.on_event(session, log, event)

    def on_background(self, session: str, event: Event) -> None:
        """An event of none; one that is over a limit of the link is told to be missing."""
        kind, body, buffers = to_message(event)
        try:
            self._transmit(Envelope(kind, body, "", session, event.execution_id, 0, 0.0, buffers))
        except LocalProtocolError as error:
            if error.code != "message_too_large":
                raise
            self._transmit(Envelope("gap", {"missing": 1}, "", session))

    def on_state(self, session: str, state: str, reason: str) -> None:
        """The session is in another state."""
        self._say("status", {"state": state, "reason": reason[:1000]}, session=session)

    def on_closed(self, hosted: Hosted, error: SessionError) -> None:
        """Another connection of the owner's reads from now on, or nobody ever again."""
        session = hosted.session.id
        self.streams.leave(session)
        self._shared.discard(session)
        if self._attached.pop(session, None) is None:
            return  # it has closed the session meanwhile
        for execution in self._following.leave(hosted):
            self.refuse(error, session, execution)
        self._say("status", {"state": "closed", "reason": error.code}, session=session)

    def announce(self, session: str, execution: str) -> None:
        """Events of an execution that somebody else drives follow."""
        self._say("watching", {}, session=session, execution=execution)

    def accept(self, session: str, execution: str, started: Started | None) -> None:
        """The node has an execution, which may have begun: then its acknowledgement says so."""
        told = {} if started is None else {"execution_count": started.execution_count}
        number = 0 if started is None else started.sequence
        self._transmit(Envelope("ack", told, "", session, execution, number))

    def tell(self, session: str, execution: str, event: Event) -> None:
        """Send an event; one that is over a limit of the link is told to be missing, or is the reason of an error."""
        kind, body, buffers = to_message(self._seen.told(event, execution))
        try:
            self._transmit(Envelope(kind, body, "", session, execution, event.sequence, 0.0, buffers))
        except LocalProtocolError as error:
            if error.code != "message_too_large":
                raise
            if not isinstance(event, Finished):
                self._seen.missed(execution)
            kind, body, _ = _in_place_of(event, error)
            self._transmit(Envelope(kind, body, "", session, execution, event.sequence))

    def on_watched_closed(self, session: str, error: SessionError) -> None:
        """A session that this connection watches is over."""
        if self._watches.pop(session, None) is not None:
            self._say("status", {"state": "closed", "reason": error.code}, session=session)

    # --- what is done at once ---

    def _hello(self, message: Any, _envelope: Envelope) -> None:
        if self._refusal is not None:
            self._say("error", Error.answer(self._refusal).model_dump())
            self._desk.drop(self)
            return
        try:
            self.principal = self._principal_of(message.token)
        except NodeError as error:
            self.deny(error, "hello")
            return
        self.client = message.client
        self._desk.send(self, self._connection.send(self._connection.welcome()))
        self._desk.greeted(self)

    def _principal_of(self, token: str) -> Principal:
        if not token:
            if self.principal is ANONYMOUS:
                raise NodeError("access_denied", "the key is not known here, and there is no token")
            return self.principal
        if not self.encrypted:
            raise NodeError("access_denied", "a token may not travel without encryption: it is not secret any more")
        return self._desk.gate.by_token(token)

    def _event_ack(self, message: Any, envelope: Envelope) -> None:
        hosted = self._attached.get(envelope.session)
        if hosted is not None:
            for execution, number in message.executions.items():
                hosted.acknowledge(execution, number, self.client)
                self._following.acknowledge(execution, number)
        elif envelope.session in self._watches:
            self._watches[envelope.session].acknowledge(message.executions)

    def _input_reply(self, message: Any, envelope: Envelope) -> None:
        hosted = self._attached.get(envelope.session)
        log = hosted.logs.get(envelope.execution) if hosted is not None else None
        if hosted is not None and log is not None and hosted.holds(envelope.execution, self.client):
            try:
                log.execution.reply_input(
                    message.request, message.value, message.error, lambda error: self._turn_down(error, envelope)
                )
            except ArgumentError:
                return  # it was answered, or timed out, while this was on its way

    def _heartbeat(self, message: Any, _envelope: Envelope) -> None:
        self._say("heartbeat", {"number": message.number})

    def _shutdown(self, _message: Any, _envelope: Envelope) -> None:
        self._say("shutdown", {"restart": False})
        self._desk.drop(self)

    # --- for the requests ---

    def session(self, session: str) -> Hosted:
        """A session that this connection reads. Raises SessionError."""
        hosted = self._attached.get(session)
        if hosted is None:
            if session in self._watches:
                raise SessionError("session_watched", "this client only watches the session")
            self._desk.registry.get(self.principal, session)
            raise SessionError("session_taken", "another client reads this session, or none: attach to it first")
        return hosted

    def visible(self, session: str) -> Hosted:
        """A session that this connection reads or watches. Raises SessionError."""
        watch = self._watches.get(session)
        return watch.hosted if watch is not None else self.session(session)

    def own(self, session: str) -> Hosted:
        """A session, by name or id, that its principal may use, whoever reads it. Raises SessionError."""
        hosted = self._desk.registry.find(self.principal, session)
        if hosted.session.id in self._watches:
            raise SessionError("session_watched", "this client only watches the session")
        if hosted.session.id in self._shared:
            raise SessionError("session_shared", "this client shares the session, which another one drives")
        return hosted

    def may_cancel(self, hosted: Hosted, execution: str) -> bool:
        """Whether this execution, or all of them (""), are its to cancel."""
        shares = hosted.session.id in self._shared
        return not shares or (execution != "" and hosted.holds(execution, self.client))

    def share(self, hosted: Hosted) -> None:
        """Use it beside whoever reads it. Raises as `watch`."""
        self._check_free(hosted, "share")
        if not self.client:
            raise ArgumentError("share", "is for who says which client it is", allowed="`client` in `hello`")
        if not self.gone:
            hosted.share(self)
            self._attached[hosted.session.id] = hosted
            self._shared.add(hosted.session.id)

    def watch(self, hosted: Hosted) -> Watch:
        """Look on. Raises SessionError; a connection has a session in one way only."""
        self._check_free(hosted, "watch")
        watch = hosted.watch(self)
        if self.gone:
            hosted.unwatch(watch)
        else:
            self._watches[hosted.session.id] = watch
        return watch

    def stop_watching(self, session: str) -> bool:
        """Look on, or share, no more; False if it did neither."""
        watch, shared = self._watches.pop(session, None), session in self._shared
        if watch is not None:
            watch.hosted.unwatch(watch)
        if shared:
            self.let_go(session)
        return shared or watch is not None

    def take_over(self, hosted: Hosted) -> None:
        """Read a session from now on; a connection that is gone leaves it to the one that came after it."""
        self.stop_watching(hosted.session.id)
        if self.gone:
            hosted.expect(self._desk.config.reconnect_timeout)
        else:
            self._attached[hosted.session.id] = hosted
            hosted.attach(self)

    def let_go(self, session: str) -> None:
        """Read a session no more."""
        self.streams.leave(session)
        hosted = self._attached.pop(session, None)
        if hosted is not None:
            self._following.leave(hosted)
            self._shared.discard(session)
            hosted.unshare(self)

    def answer(
        self,
        kind: str,
        body: dict[str, Any],
        envelope: Envelope,
        session: str = "",
        buffers: tuple[Buffer, ...] = (),
    ) -> None:
        """Answer a request."""
        answer = body | {"reply_to": envelope.id}
        self._transmit(Envelope(kind, answer, session=session or envelope.session, buffers=buffers))

    def fail(self, error: CapsuleError, envelope: Envelope) -> None:
        """Answer a request that could not be done."""
        self._desk.gate.refused(self.principal, envelope.type, error)
        self._say("error", Error.answer(error, envelope.id).model_dump(), session=envelope.session)

    # --- for the executions that it follows ---

    def reads(self, session: str) -> bool:
        """Whether it reads this session, and is not gone."""
        return not self.gone and session in self._attached

    def refuse(self, error: CapsuleError, session: str, execution: str, action: str = "execute") -> None:
        """The answer to an execution that is not accepted, or is another client's now."""
        self._desk.gate.refused(self.principal, action, error)
        body = Error.answer(error).model_dump()
        number = self._connection.executions.next_number("error", execution)
        self._transmit(Envelope("error", body, "", session, execution, number))

    def give_up(self, why: str) -> None:
        """End the connection: its client comes back, and goes on."""
        logger.error("%r is dropped: %s", self, why)
        self._desk.drop(self)

    # --- for the streams ---

    @property
    def message_bytes(self) -> int:
        """How large a message may be."""
        return self._connection.limits.message_bytes

    @property
    def open_streams(self) -> int:
        """How many streams one of the ends has not closed."""
        return len(self._connection.streams)

    def credit(self, stream: str) -> int:
        """How many bytes of a stream this end may still send."""
        return self._connection.streams.credit(stream)

    def transmit(self, envelope: Envelope) -> None:
        """Send a message."""
        self._transmit(envelope)

    # --- inside ---

    def _check_free(self, hosted: Hosted, way: str) -> None:
        if hosted.session.id in self._attached or hosted.session.id in self._watches:
            raise ArgumentError(way, "this client has the session already", allowed="one way to have a session")

    def _turn_down(self, error: SessionError, envelope: Envelope) -> None:
        """The principal may not do this, or not now."""
        if envelope.type in {"execute", "resume"}:
            self.refuse(error, envelope.session, envelope.execution, envelope.type)
        elif envelope.id:
            self.fail(error, envelope)
        else:  # nobody waits for an answer
            self._desk.gate.refused(self.principal, envelope.type, error)

    def _say(self, kind: str, body: dict[str, Any], *, session: str = "", execution: str = "") -> None:
        self._transmit(Envelope(kind, body, "", session, execution))

    def _dated(self, envelope: Envelope) -> Envelope:
        """With the epoch of its session, if that is one which this connection has."""
        hosted = self._attached.get(envelope.session)
        if hosted is None and envelope.session in self._watches:
            hosted = self._watches[envelope.session].hosted
        return envelope if hosted is None else Envelope._make((*envelope[:-1], hosted.session.epoch))

    def _transmit(self, envelope: Envelope) -> None:
        if not self.gone:
            frames = self._connection.transmit(self._dated(envelope))
            self._desk.gate.carried(self.principal, sum(map(len, frames)))
            self._desk.send(self, frames, bulk=envelope.type in BULK)


def _in_place_of(event: Event, error: LocalProtocolError) -> Wired:
    if not isinstance(event, Finished):
        return Wired("gap", {"missing": 1})
    body = {"verdict": "error", "name": "ResultTooLarge", "message": error.message, "code": "result_too_large"}
    known = {"execution_count": event.execution_count, "duration": event.duration, "epoch": event.epoch}
    return Wired("error", body | known)
