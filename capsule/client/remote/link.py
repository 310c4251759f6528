"""The link of a client to its node: one connection after another, and what must survive from one to the next."""

from __future__ import annotations

import asyncio
import logging
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from capsule.client.remote.streams import Streams
from capsule.client.remote.wire import Wire
from capsule.events import Started
from capsule.node.tasks import Tasks
from capsule.wire import to_event
from capsule_protocol.envelope import Envelope
from capsule_protocol.errors import CapsuleError, LocalProtocolError, NodeError, SessionError
from capsule_protocol.ids import MESSAGE, new_id
from capsule_protocol.states import BACKGROUND, EVENTS, STREAMS

if TYPE_CHECKING:
    from collections.abc import Callable

    from capsule.client.remote.session import RemoteSession
    from capsule.keys import Credentials
    from capsule_protocol.envelope import Buffer
    from capsule_protocol.messages import Message

logger = logging.getLogger("capsule.client")

CONNECT_TIMEOUT = 5.0
"""Seconds that a node may take to greet."""
RECONNECT_TIMEOUT = 60.0
"""Seconds that a lost connection may take to come back; the node waits as long for its client."""
SHORTEST, LONGEST = 0.05, 2.0
"""Seconds: the bounds of the pause between two attempts; it doubles, and is drawn at random up to there."""
HEARTBEAT = 10.0
"""Seconds between two signs of life; a node that is silent for three of them is taken for gone."""
ACK_DELAY = 0.005
"""Seconds that an acknowledgement of a verdict may wait for others."""
ACKS_AT_ONCE = 4096
_FORGOTTEN = frozenset({"unexpected_message", "sequence_gap"})
"""Codes with which a node says that it does not know this connection any more."""


MAX_FORSAKEN = 1000
"""Requests whose asker has left, and whose answer would have to be undone."""
_UNDO = {"open": "close", "attach": "detach"}
"""What undoes a request that was done although nobody waited for it any more."""


@dataclass(slots=True)
class _Request:
    envelope: Envelope
    again: bool
    answer: asyncio.Future[dict[str, Any]]
    wire: Wire | None = None
    on_answer: Callable[[dict[str, Any]], None] | None = None


class Link:
    """Connects with `connect`, and again by itself whenever the connection is lost, until `close`."""

    def __init__(self, address: str, credentials: Credentials | None = None) -> None:
        self._address = address
        self._credentials = credentials
        self._client = new_id("c_") + new_id("")
        self._loop = asyncio.get_running_loop()
        self._tasks = Tasks()
        self.streams = Streams(self)
        self._wire: Wire | None = None
        self._restored = False  # the connection is there, and all sessions are attached to it
        self._forsaken: dict[str, str] = {}
        self._error: CapsuleError | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._sessions: dict[str, RemoteSession] = {}
        self._requests: dict[str, _Request] = {}
        self._acks: dict[str, dict[str, int]] = {}
        self._ack_timer: asyncio.TimerHandle | None = None
        self._beat_timer: asyncio.TimerHandle | None = None
        self._heard = 0.0
        self._number = 0

    def __repr__(self) -> str:
        state = "closed" if self._error else "connected" if self._wire else "reconnecting"
        return f"<Link {self._address} {state} sessions={len(self._sessions)}>"

    @property
    def connected(self) -> bool:
        """Whether there is a connection now."""
        return self._wire is not None

    async def connect(self) -> None:
        """Be connected. Raises NodeError, or what the node has against this client."""
        if self._error is not None:
            raise self._error
        if self._wire is None and (self._connecting is None or self._connecting.done()):
            self._connecting = self._tasks.start(self._connect())
        if self._connecting is not None and self._wire is None:
            await asyncio.shield(self._connecting)

    def adopt(self, session: RemoteSession) -> None:
        """Events of this session come from now on, and no more to an earlier object of the same session."""
        earlier = self._sessions.get(session.id)
        if earlier is not None:
            earlier.end(SessionError("session_taken", f"this client has attached to {session.name!r} again"))
        self._sessions[session.id] = session

    async def close(self) -> None:
        """Say goodbye and hang up. Idempotent."""
        if self._wire is not None:
            self._flush_acks()
            self._transmit("shutdown", {"restart": False})
            self._wire.close()
        self._give_up(SessionError("client_closed", "the client has been closed"))
        await self._tasks.close()

    # --- for the sessions ---

    async def request(
        self,
        kind: str,
        body: dict[str, Any],
        session: str = "",
        *,
        timeout: float,
        again: bool = True,
        buffers: tuple[bytes, ...] = (),
        on_answer: Callable[[dict[str, Any]], None] | None = None,
    ) -> dict[str, Any]:
        """Send a request and wait for its answer, which `on_answer` gets before what comes behind it is looked at.

        Raises what the node says, NodeError, `request_timeout`.
        """
        if self._error is not None:
            raise self._error
        envelope = Envelope(kind, body, new_id(MESSAGE), session, buffers=buffers)
        waiting = _Request(envelope, again, self._loop.create_future(), on_answer=on_answer)
        self._requests[envelope.id] = waiting
        try:
            if self._restored:
                self._send_request(waiting)
            async with asyncio.timeout(timeout):
                return await waiting.answer
        except TimeoutError:
            message = f"{kind} was not answered within {timeout:g} s"
            raise CapsuleError("request_timeout", message, retryable=again) from None
        finally:
            del self._requests[envelope.id]
            if not waiting.answer.done() or waiting.answer.cancelled():
                self._forsake(waiting)

    def post(
        self, kind: str, body: dict[str, Any], session: str, execution: str = "", buffers: tuple[bytes, ...] = ()
    ) -> None:
        """Send what has no answer of its own; what is lost with a connection is asked for again on the next."""
        if self._restored:
            self._transmit(kind, body, session, execution, buffers)

    def acknowledge(self, session: str, execution: str, number: int, *, soon: bool) -> None:
        """The events of an execution up to this number are dealt with."""
        acks = self._acks.setdefault(session, {})
        acks[execution] = number
        if soon or len(acks) >= ACKS_AT_ONCE:
            self._flush_acks()
        elif self._ack_timer is None:
            self._ack_timer = self._loop.call_later(ACK_DELAY, self._flush_acks)

    def say(self, kind: str, body: dict[str, Any], session: str, buffers: tuple[Buffer, ...] = ()) -> None:
        """Send what belongs to this connection only."""
        if self._wire is not None:
            self._wire.transmit(Envelope(kind, body, "", session, buffers=buffers))

    def credit(self, stream: str) -> int:
        """How many bytes of a stream may be sent."""
        return self._wire.credit(stream) if self._wire is not None else 0

    def forget(self, session: RemoteSession) -> None:
        """The session is over."""
        self._sessions.pop(session.id, None)
        self._acks.pop(session.id, None)

    # --- connecting ---

    async def _connect(self) -> None:
        wire = Wire(self._address, self._on_message, self._on_lost, self._credentials)
        try:
            await wire.greet(self._client, CONNECT_TIMEOUT)
        except BaseException:
            wire.close()
            raise
        self._wire = wire
        self._heard = self._loop.time()
        self._beat_timer = self._loop.call_later(HEARTBEAT, self._beat)
        failed = await asyncio.gather(*(self._reattach(session) for session in list(self._sessions.values())))
        if self._wire is wire:
            for error in filter(None, failed):  # the node cannot give a session back now: later perhaps
                self._drop_wire()
                wire.close()
                raise error
            self._restore()

    async def _reconnect(self) -> None:
        """Try until it works or the time is over, then bring back all that was under way."""
        until = self._loop.time() + RECONNECT_TIMEOUT
        pause = SHORTEST
        while True:
            try:
                await self._connect()
                break
            except CapsuleError as error:
                if error.code == "access_denied" and not error.retryable:
                    self._give_up(error)
                    return
                if self._loop.time() + pause > until or not error.retryable:
                    message = f"the connection to {self._address} was lost and did not come back: {error.message}"
                    self._give_up(NodeError("connection_lost", message))
                    return
            await asyncio.sleep(random.uniform(0, pause))  # noqa: S311 - no secret
            pause = min(2 * pause, LONGEST)

    def _restore(self) -> None:
        """All sessions are attached: send what was not, or may not have been, before the connection was lost."""
        self._restored = True
        for session in list(self._sessions.values()):
            session.resume()
        for waiting in list(self._requests.values()):
            if waiting.wire is not self._wire:
                self._send_request(waiting)
        self._flush_acks()

    def _send_request(self, waiting: _Request) -> None:
        if self._wire is not None:
            waiting.wire = self._wire
            self._wire.transmit(waiting.envelope)

    def _forsake(self, waiting: _Request) -> None:
        """Who asked has left; if it is done all the same it is undone."""
        if waiting.envelope.type in _UNDO and len(self._forsaken) < MAX_FORSAKEN:
            self._forsaken[waiting.envelope.id] = _UNDO[waiting.envelope.type]

    async def _reattach(self, session: RemoteSession) -> CapsuleError | None:
        """Take a session up again; what says that this may work later is answered."""
        envelope = Envelope("attach", session.attaching(), new_id(MESSAGE))
        waiting = self._requests[envelope.id] = _Request(envelope, again=False, answer=self._loop.create_future())
        self._send_request(waiting)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                reply = await waiting.answer
        except CapsuleError as error:
            # To attach twice is to attach once. A place that others have now keeps no other session waiting.
            if error.code != "too_many_watchers" and (error.retryable or error.code == "connection_lost"):
                logger.info("session %s could not be attached again: %s", session.id, error)
                return error
            session.end(error)
        except TimeoutError:
            message = f"the node has not given session {session.id} back in time"
            return NodeError("request_timeout", message, retryable=True)
        else:
            session.epoch = reply["epoch"]
        finally:
            del self._requests[envelope.id]
        return None

    def _on_lost(self, why: str) -> None:
        logger.info("the connection to %s was lost: %s", self._address, why)
        self._drop_wire()
        self.streams.lose(NodeError("connection_lost", f"the connection to {self._address} was lost: {why}"))
        for waiting in self._requests.values():
            if not waiting.again and not waiting.answer.done():
                error = NodeError(
                    "connection_lost", f"{waiting.envelope.type}: {why}; whether it was done is not known"
                )
                waiting.answer.set_exception(error)
        self._connecting = self._tasks.start(self._reconnect())

    def _give_up(self, error: CapsuleError) -> None:
        self._error = error
        self._end_all(error)

    def _end_all(self, error: CapsuleError) -> None:
        """Nothing that is under way will come to its end; another connection may be made."""
        self._drop_wire()
        self.streams.lose(error)
        for waiting in self._requests.values():
            if not waiting.answer.done():
                waiting.answer.set_exception(error)
        for session in list(self._sessions.values()):
            session.end(error)

    def _drop_wire(self) -> None:
        wire, self._wire = self._wire, None
        self._restored = False
        for acks in self._acks.values():
            acks.pop("", None)  # counted on this connection
        for timer in (self._beat_timer, self._ack_timer):
            if timer is not None:
                timer.cancel()
        self._beat_timer = self._ack_timer = None
        if wire is not None:
            wire.close()

    def _beat(self) -> None:
        if self._loop.time() - self._heard > 3 * HEARTBEAT:
            self._on_lost("the node has been silent for too long")
            return
        self._number += 1
        self._transmit("heartbeat", {"number": self._number})
        self._beat_timer = self._loop.call_later(HEARTBEAT, self._beat)

    # --- messages ---

    def _transmit(
        self,
        kind: str,
        body: dict[str, Any],
        session: str = "",
        execution: str = "",
        buffers: tuple[bytes, ...] = (),
    ) -> None:
        if self._wire is None:
            return
        try:
            self._wire.transmit(Envelope(kind, body, "", session, execution, buffers=buffers))
        except LocalProtocolError as error:
            known = self._sessions.get(session)
            if known is None or kind != "execute":
                raise
            known.refused(execution, error)

    def _flush_acks(self) -> None:
        if self._ack_timer is not None:
            self._ack_timer.cancel()
            self._ack_timer = None
        if not self._restored:
            return  # later
        acks, self._acks = self._acks, {}
        for session, numbers in acks.items():
            self._transmit("event_ack", {"executions": numbers}, session)

    def _on_message(self, message: Message, envelope: Envelope) -> None:
        self._heard = self._loop.time()
        if envelope.epoch and envelope.session in self._sessions:
            self._sessions[envelope.session].in_epoch(envelope.epoch)
        reply_to = envelope.body.get("reply_to")
        if reply_to:
            self._answer(reply_to, envelope)
            return
        if envelope.type == "shutdown":
            self._end_all(SessionError("node_closed", f"the node at {self._address} has ended"))
            return
        if envelope.type == "error" and not envelope.execution and self._ends(envelope.body):
            return
        if envelope.type in STREAMS:
            self.streams.take(message, envelope)
        elif envelope.session in self._sessions:  # not of one that this client has closed, and no heartbeat
            self._tell(self._sessions[envelope.session], message, envelope)

    def _tell(self, session: RemoteSession, message: Message, envelope: Envelope) -> None:
        kind, execution = envelope.type, envelope.execution
        if kind == "ack":
            session.accepted(execution)
            if envelope.sequence:
                session.add(Started(execution, envelope.sequence, envelope.body.get("execution_count", 0)))
        elif kind == "error" and not envelope.body.get("verdict"):
            session.refused(execution, CapsuleError.from_dict(envelope.body))
        elif kind in EVENTS and envelope.sequence:
            session.add(to_event(message, envelope))
        elif kind in BACKGROUND:
            session.background(to_event(message, envelope))
        elif kind == "status":
            session.changed(envelope.body["state"], envelope.body.get("reason", ""))

    def _ends(self, body: dict[str, Any]) -> bool:
        """Whether an error that answers nothing is the end of this connection, or of all."""
        if body["code"] == "access_denied":
            self._give_up(CapsuleError.from_dict(body))
        elif body["code"] in _FORGOTTEN:
            self._on_lost(body["message"])
        else:
            return False
        return True

    def _answer(self, reply_to: str, envelope: Envelope) -> None:
        waiting = self._requests.get(reply_to)
        if waiting is None or waiting.answer.done():
            undo = self._forsaken.pop(reply_to, None)
            if undo is not None and envelope.type == "ready" and envelope.session not in self._sessions:
                self._transmit(undo, {}, envelope.session)
            return
        if envelope.type == "error":
            waiting.answer.set_exception(CapsuleError.from_dict(envelope.body))
        else:
            reply = {**envelope.body, "session": envelope.session, "buffers": envelope.buffers}
            if waiting.on_answer is not None:
                waiting.on_answer(reply)
            waiting.answer.set_result(reply)
