"""What is asked of one process, and what it answers; one that does not keep to the rules is ended."""

from __future__ import annotations

import asyncio
from itertools import count
from typing import TYPE_CHECKING, Any

from capsule.broker.apart.messages import Piece, Refusal, Want, hear, pack
from capsule.broker.bodies import INLINE, WINDOW, Inlet
from capsule.stream import PeerBusyError, Stream
from capsule_protocol.errors import CapabilityFailed, LocalProtocolError, RemoteProtocolError, capability_error
from capsule_protocol.limits import DEFAULT_LIMITS

if TYPE_CHECKING:
    from collections.abc import Callable

    from capsule.broker.apart.messages import Heard
    from capsule.broker.apart.process import Process
    from capsule_protocol.envelope import Buffer


class Exchange:
    """A question or a call that has no answer yet. `changes`: what it may change, or "" if it changes nothing."""

    def __init__(self, number: int, changes: str, give_credit: Callable[[int], None]) -> None:
        self.number = number
        self.answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self.body = Inlet((), more=True, give_credit=give_credit)
        """The answer's, as far as it does not come with the answer itself."""
        self.rest: tuple[Buffer, ...] = ()
        """Of that body, with the answer."""
        self.wanted = 0
        """Bytes of the request's body that there is room for; `more` is set when there is."""
        self.more = asyncio.Event()
        self.error: BaseException | None = None
        self._changes = changes

    def hear(self, heard: Heard) -> None:
        """A message for it. Raises RemoteProtocolError for what was not due."""
        said = heard.said
        if self.answer.done():
            return
        if isinstance(said, Want):
            self._room(said.size)
        elif isinstance(said, Piece):
            if self.error is None:
                self.body.feed(heard.buffers)
        elif isinstance(said, Refusal):
            self._settle(capability_error(said.outcome, said.error.model_dump()))
        else:
            if sum(map(len, heard.buffers)) > INLINE:
                raise RemoteProtocolError("credit_exceeded", f"an answer carries more than {INLINE} bytes of its body")
            self.rest = heard.buffers
            self.answer.set_result(said.value)
            self.body.end()

    def lose(self, why: str) -> None:
        """Nobody will answer it any more."""
        if self.answer.done():
            return
        if self._changes:
            message = f"{why}, so whether {self._changes} took effect is not known"
            self._settle(CapabilityFailed("capability_uncertain", message))
        else:
            self._settle(CapabilityFailed("provider_unavailable", why))

    def brought(self, bringing: asyncio.Future[None]) -> None:
        """The request's body has been brought, or could not be: then the call fails with that."""
        self.error = None if bringing.cancelled() else bringing.exception()
        if self.error is not None:
            self.body.end()

    def _room(self, size: int) -> None:
        self.wanted += size
        if self.wanted > WINDOW:
            raise RemoteProtocolError("credit_exceeded", f"more than {WINDOW} bytes of a body are asked for")
        self.more.set()

    def _settle(self, error: Exception) -> None:
        self.answer.set_exception(error)
        self.answer.exception()  # whoever asked may have gone
        self.body.end()


class Link:
    """The exchanges with one process, which it owns."""

    def __init__(self, process: Process, origin: str) -> None:
        self._process = process
        self._origin = origin
        self._numbers = count(1)
        self._open: dict[int, Exchange] = {}
        self._why = "has ended"
        self._stream = Stream(asyncio.get_running_loop(), process.sock, DEFAULT_LIMITS, self._hear, self._broken)
        self._stream.disconnected.add_done_callback(self._gone)
        self._stream.start()

    @property
    def alive(self) -> bool:
        """Whether it may be asked something."""
        return not self._stream.disconnected.done()

    def open(self, kind: str, body: dict[str, Any], changes: str = "") -> Exchange:
        """Begin an exchange, which has to be closed. Raises CapabilityFailed."""
        if not self.alive:
            raise CapabilityFailed("provider_unavailable", self._told())
        number = next(self._numbers)
        exchange = Exchange(number, changes, lambda size: self.send("credit", number, {"size": size}))
        self._open[number] = exchange
        try:
            self.send(kind, number, body)
        except LocalProtocolError as error:
            self.close(exchange)
            raise CapabilityFailed("capability_too_large", f"it fits into no message: {error.message}") from error
        return exchange

    def close(self, exchange: Exchange) -> None:
        """What still comes for it is of no use. Idempotent."""
        self._open.pop(exchange.number, None)

    async def ask(self, kind: str, body: dict[str, Any], seconds: float) -> dict[str, Any]:
        """The answer to a question. Raises CapabilityError; a process that does not answer in time is ended."""
        exchange = self.open(kind, body)
        try:
            async with asyncio.timeout(seconds):
                return await exchange.answer
        except TimeoutError:
            self.end("does not answer")
            raise CapabilityFailed("provider_unavailable", self._told()) from None
        finally:
            self.close(exchange)

    def send(self, kind: str, number: int, body: dict[str, Any], buffers: tuple[Buffer, ...] = ()) -> None:
        """Tell it something; it may have gone."""
        if self.alive:
            try:
                self._stream.send(pack(kind, number, body, buffers))
            except PeerBusyError:
                self.end("does not listen")

    def end(self, why: str) -> None:
        """Kill the process, for it `why`; what is open fails at once."""
        if self.alive:
            self._why = f"{why}, and was ended"
            self._process.kill()
            self._stream.close()  # somebody else may have its end of the socket, too

    async def shut(self) -> None:
        """Let it end. Idempotent."""
        self._stream.close()
        await asyncio.to_thread(self._process.end)

    def _told(self) -> str:
        return f"the process of {self._origin} {self._why}"

    def _hear(self, frames: list[bytes]) -> None:
        try:
            heard = hear(frames)
            exchange = self._open.get(heard.number)
            if exchange is not None:
                exchange.hear(heard)
        except RemoteProtocolError as error:
            self._broken(error)

    def _broken(self, error: RemoteProtocolError) -> None:
        self.end(f"does not keep to the rules ({error.message})")

    def _gone(self, _: object) -> None:
        for exchange in self._open.values():
            exchange.lose(self._told())
