"""Calls of capabilities on their way to the node and back: from any thread, with bodies under credit.

A call is a conversation, written once as a generator: it yields WAIT where it needs the next message of the node, and
each piece of the answer's body; whoever drives it, plainly or in an event loop, decides how to wait.
"""

from __future__ import annotations

import asyncio
import queue
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from capsule_protocol.envelope import Envelope
from capsule_protocol.errors import CapabilityFailed, LocalProtocolError, capability_error
from capsule_protocol.ids import stream_of
from capsule_protocol.limits import CAPABILITY_NAME, POSITIONAL

if TYPE_CHECKING:
    from collections.abc import Callable

    from capsule_kernels.capture import Outlet
    from capsule_kernels.link import Link
    from capsule_kernels.publisher import Publisher
    from capsule_protocol.envelope import Buffer

WINDOW = 8 * 2**20
"""Bytes of an answer's body that may be on their way."""
INLINE = 256 * 1024
"""So much of a body travels with the request."""
PIECE = 2**20
"""Bytes of one message of a stream."""
MANY = 64
"""Buffers of a message."""
MAX_OPEN = 256
"""Calls without an answer."""

WAIT = None
"""What a conversation yields to have the next message."""
Body: TypeAlias = "bytes | bytearray | memoryview | Iterable[bytes]"
Talk: TypeAlias = Generator["bytes | None", "Envelope | None", "Answer"]


class Asked(NamedTuple):
    """What is called, with what."""

    capability: str
    positional: tuple[Any, ...]
    arguments: dict[str, Any]
    body: Body | None = None


class Answer(NamedTuple):
    """What was answered; `body`: of what kind the bytes are that belong to it, "" if none do."""

    value: dict[str, Any]
    body: str


class Calls:
    """Those of one session that have no answer yet."""

    def __init__(self, publisher: Publisher, link: Link, outlet: Outlet) -> None:
        self._publisher = publisher
        self._link = link
        self._outlet = outlet
        self._open: dict[int, _Call] = {}
        self._last = 0

    def hear(self, envelope: Envelope) -> None:
        """A reply, or what belongs to a body; called on the I/O thread."""
        number = _number_of(envelope)
        call = self._open.get(number)
        if call is not None:
            if envelope.type == "capability_reply":
                call.replied = True
                if call.given_up:
                    self._open.pop(number, None)
            else:
                call.touched = True
            call.post(envelope)

    def again(self, send: Callable[[Envelope], object]) -> None:
        """Another node knows nothing of these; called on the I/O thread. Bytes that are gone cannot be sent again."""
        for call in list(self._open.values()):
            if call.given_up:
                self._open.pop(call.number, None)
            elif call.touched:
                message = "the node died while bytes of the call were under way"
                failure = CapabilityFailed("capability_uncertain", message).as_dict()
                call.post(Envelope("capability_reply", {"request": call.number, "outcome": "failed", "error": failure}))
            else:
                send(call.request)

    def ask(self, asked: Asked) -> tuple[Answer, list[bytes]]:
        """Call, and wait for the answer and its whole body. Raises CapabilityError."""
        mailbox: queue.SimpleQueue[Envelope] = queue.SimpleQueue()
        talk = self._converse(asked, mailbox.put)
        pieces: list[bytes] = []
        message = None
        try:
            while True:
                piece = talk.send(message)
                message = None
                if piece is WAIT:
                    message = mailbox.get()
                else:
                    pieces.append(piece)
        except StopIteration as end:
            return end.value, pieces
        finally:
            talk.close()

    def pieces(self, asked: Asked) -> Iterator[bytes]:
        """Call, and have the answer's body piece by piece, as it comes. Raises CapabilityError."""
        mailbox: queue.SimpleQueue[Envelope] = queue.SimpleQueue()
        talk = self._converse(asked, mailbox.put)
        message = None
        try:
            while True:
                piece = talk.send(message)
                message = None
                if piece is WAIT:
                    message = mailbox.get()
                else:
                    yield piece
        except StopIteration:
            return
        finally:
            talk.close()

    async def ask_async(self, asked: Asked) -> tuple[Answer, list[bytes]]:
        """As `ask`, in an event loop."""
        pieces: list[bytes] = []
        talk = _Drive(self, asked)
        try:
            while (piece := await talk.next()) is not None:
                pieces.append(piece)
        finally:
            talk.close()
        assert talk.answer is not None
        return talk.answer, pieces

    def drive(self, asked: Asked) -> _Drive:
        """As `pieces`, in an event loop."""
        return _Drive(self, asked)

    # --- inside ---

    def _converse(self, asked: Asked, post: Callable[[Envelope], object]) -> Talk:
        source = _Source(asked.body)
        call = self._begin(asked, source, post)
        answered = False
        try:
            try:
                self._ask_node(call.request)
            except CapabilityFailed:
                answered = True  # nothing was asked
                raise
            while True:
                message = yield WAIT
                assert message is not None
                if message.type == "stream_credit":
                    self._give(call, source, message.body["size"])
                    continue
                yield from map(bytes, message.buffers)
                if message.type == "capability_reply":
                    answered = True
                    return _read(message.body)
                size = sum(len(each) for each in message.buffers)
                self._send(call, "stream_credit", {"size": size})
        finally:
            if answered or self._outlet.detached:
                self._open.pop(call.number, None)
            else:
                self._give_up(call)

    def _begin(self, asked: Asked, source: _Source, post: Callable[[Envelope], object]) -> _Call:
        if self._outlet.detached:
            raise CapabilityFailed("capability_failed", "a process that the session has forked makes no calls")
        if len(self._open) >= MAX_OPEN:
            raise CapabilityFailed("capability_failed", f"the session has {MAX_OPEN} calls without an answer")
        _check(asked)
        first = source.take(INLINE)
        self._last += 1  # between two bytecodes of the interpreter: no other thread gets the same
        number = self._last
        body = {
            "request": number,
            "capability": asked.capability,
            "positional": list(asked.positional),
            "arguments": asked.arguments,
            "more": not source.ended,
            "window": WINDOW,
        }
        session, execution = self._publisher.session, self._publisher.current()
        request = Envelope("capability_request", body, session=session, execution=execution, buffers=tuple(first))
        call = self._open[number] = _Call(number, request, post)
        return call

    def _ask_node(self, request: Envelope) -> None:
        try:
            self._link.send(request)
        except LocalProtocolError as error:
            code = "capability_too_large" if error.code == "message_too_large" else "capability_invalid"
            message = f"{request.body['capability']}: the arguments cannot be sent: {error.message}"
            raise CapabilityFailed(code, message, details=error.details) from None

    def _give_up(self, call: _Call) -> None:
        """Nobody waits for it any more. It counts until the node has replied: till then it is under way there."""
        call.post = _drop
        call.given_up = True
        if call.replied:  # in this order, or neither thread would forget it
            self._open.pop(call.number, None)
        self._link.send(Envelope("capability_cancel", {"request": call.number}, session=self._publisher.session))

    def _give(self, call: _Call, source: _Source, size: int) -> None:
        """Send so much more of the body."""
        while size > 0 and not source.ended and (pieces := source.take(min(size, PIECE))):
            size -= sum(len(piece) for piece in pieces)
            self._send(call, "stream_data", {}, tuple(pieces))
        if source.ended and not call.ended:
            call.ended = True
            self._send(call, "stream_close", {"error": None, "metadata": {}})

    def _send(self, call: _Call, kind: str, body: dict[str, Any], buffers: tuple[Buffer, ...] = ()) -> None:
        body["stream"] = stream_of(call.number)
        self._link.send(Envelope(kind, body, session=self._publisher.session, buffers=buffers))


class _Call:
    """One without an answer."""

    __slots__ = ("ended", "given_up", "number", "post", "replied", "request", "touched")

    def __init__(self, number: int, request: Envelope, post: Callable[[Envelope], object]) -> None:
        self.number = number
        self.request = request
        self.post = post
        self.ended = False
        self.given_up = False
        self.replied = False
        self.touched = False
        """Bytes have been asked for, or have come, beside request and reply."""


class _Source:
    """The body of a request, from which pieces are taken."""

    def __init__(self, body: Body | None) -> None:
        if body is None:
            self._parts: Iterator[Any] = iter(())
        elif isinstance(body, bytes | bytearray | memoryview):
            self._parts = iter((body,))
        else:
            self._parts = iter(body)
        self._rest: deque[memoryview] = deque()
        self.ended = False
        self._look()

    def take(self, size: int) -> list[Buffer]:
        """At most so many bytes; none only if it has ended. Small pieces are put together."""
        taken: list[Buffer] = []
        while size > 0 and self._rest:
            piece = self._rest.popleft()
            if len(piece) > size:
                self._rest.appendleft(piece[size:])
                piece = piece[:size]
            taken.append(piece)
            size -= len(piece)
            self._look()
        return taken if len(taken) <= MANY else [b"".join(taken)]

    def _look(self) -> None:
        """Whether there is more."""
        while not self._rest and not self.ended:
            part = next(self._parts, None)
            if part is None:
                self.ended = True
            elif len(view := memoryview(part).cast("B")):
                self._rest.append(view)


class _Drive:
    """A conversation in an event loop: an iterator of the answer's body, which knows the answer at its end."""

    def __init__(self, calls: Calls, asked: Asked) -> None:
        self._loop = asyncio.get_running_loop()
        self._mailbox: asyncio.Queue[Envelope] = asyncio.Queue()
        self._talk = calls._converse(asked, self._post)  # noqa: SLF001  # of this module
        self._message: Envelope | None = None
        self.answer: Answer | None = None

    async def next(self) -> bytes | None:
        """The next piece, None behind the last."""
        while self.answer is None:
            message, self._message = self._message, None
            try:
                piece = self._talk.send(message)
            except StopIteration as end:
                self.answer = end.value
                break
            if piece is not WAIT:
                return piece
            self._message = await self._mailbox.get()
        return None

    def close(self) -> None:
        """Nobody waits any more."""
        self._talk.close()

    def _post(self, envelope: Envelope) -> None:
        """On the I/O thread."""
        try:
            self._loop.call_soon_threadsafe(self._mailbox.put_nowait, envelope)
        except RuntimeError:  # the loop has been closed: nobody waits for it there
            return


def _check(asked: Asked) -> None:
    """Refuse what is over the protocol's bounds, for which the node would kill the worker. Raises CapabilityFailed."""
    name = asked.capability.encode(errors="backslashreplace").decode()  # as it travels
    if len(name) > CAPABILITY_NAME:
        message = f"the name of a capability has at most {CAPABILITY_NAME} characters, not {len(name)}"
        raise CapabilityFailed("capability_invalid", message)
    if len(asked.positional) > POSITIONAL:
        given = f"{len(asked.positional)} arguments without a name"
        hint = "Many values go into one list, as one argument."
        raise CapabilityFailed("capability_invalid", f"{name}: {given} are given; at most {POSITIONAL}", hint=hint)


def _drop(_: Envelope) -> None:
    """What nobody waits for."""


def _number_of(envelope: Envelope) -> int:
    if envelope.type == "capability_reply":
        return int(envelope.body["request"])
    prefix, _, number = str(envelope.body["stream"]).partition(":")
    return int(number) if prefix == "call" and number.isdecimal() else 0


def _read(body: dict[str, Any]) -> Answer:
    """The outcome. Raises CapabilityError."""
    error = body.get("error")
    if error is not None:
        raise capability_error(str(body.get("outcome")), error)
    return Answer(body.get("value") or {}, str(body.get("body", "")))
