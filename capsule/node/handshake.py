"""The beginning of a link to a worker: hello and welcome, open and ready."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from capsule_protocol import negotiation
from capsule_protocol.envelope import Envelope
from capsule_protocol.errors import CapsuleError, RemoteProtocolError, WorkerLost
from capsule_protocol.ids import MESSAGE, new_id
from capsule_protocol.messages.execution import Error
from capsule_protocol.messages.link import Ready, Welcome

if TYPE_CHECKING:
    from capsule.node.box import ExitStatus
    from capsule_protocol.limits import Limits
    from capsule_protocol.messages import Message
    from capsule_protocol.negotiation import Agreement

FEATURES = frozenset({"introspection", "comms", "progress", "stdin"})
"""What this node can use of a worker."""

_OF_WARMUP = frozenset({"display", "clear_output", "progress", "comm_open", "comm_msg", "comm_close"})
"""What the environment's warm-up code may have caused; nobody is there to see it."""

Send = Callable[[Envelope], None]


class Greeting:
    """Takes the messages of a link until the session is open; afterwards it takes none."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._expected: type[Message] | None = None
        self._answer: asyncio.Future[tuple[Message, Envelope]] | None = None
        self._done = False

    async def hello(self, send: Send, limits: Limits, exited: asyncio.Future[ExitStatus]) -> Agreement:
        """Greet. Raises what the worker answers, RemoteProtocolError, or WorkerLost when it ends."""
        hello = Envelope("hello", negotiation.hello("node", FEATURES, limits), new_id(MESSAGE))
        _, envelope = await self._ask(send, hello, Welcome, exited)
        return negotiation.accept(envelope.body, FEATURES, limits)

    async def open(self, send: Send, opening: Envelope, exited: asyncio.Future[ExitStatus]) -> Ready:
        """Open a session. Raises as `hello` does."""
        ready, _ = await self._ask(send, opening, Ready, exited)
        assert isinstance(ready, Ready)
        self._done = True
        return ready

    def skip(self) -> None:
        """The session is open already: another node has opened it."""
        self._done = True

    def take(self, message: Message, envelope: Envelope) -> bool:
        """Take a message if it belongs here; one that does not is a violation until the session is open."""
        if self._done:
            return False
        if envelope.type in _OF_WARMUP:
            return True
        waiting = self._answer is not None and not self._answer.done()
        if not waiting or not isinstance(message, (self._expected or Error, Error)):
            raise RemoteProtocolError("unexpected_message", f"{envelope.type} came before the session was open")
        assert self._answer is not None
        self._answer.set_result((message, envelope))
        return True

    def fail(self, error: Exception) -> None:
        """The link is broken."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)

    async def _ask(
        self, send: Send, envelope: Envelope, expected: type[Message], exited: asyncio.Future[ExitStatus]
    ) -> tuple[Message, Envelope]:
        self._expected = expected
        self._answer = self._loop.create_future()
        send(envelope)
        waiting: list[asyncio.Future[Any]] = [self._answer, exited]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if not self._answer.done():
            raise WorkerLost("worker_start_failed", f"the worker ended while it started: {exited.result()}")
        message, answer = self._answer.result()
        if isinstance(message, Error):
            raise CapsuleError.from_dict(message.model_dump())
        return message, answer
