"""One connection to a node, from its greeting to its end. Who wants another makes another."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from capsule.client.remote.carrier import TCP, Carrier, UnixCarrier
from capsule.client.remote.tcp import TcpCarrier
from capsule_protocol.connection import Connection
from capsule_protocol.envelope import Envelope
from capsule_protocol.errors import CapsuleError, NodeError, RemoteProtocolError
from capsule_protocol.framing import NEED_DATA
from capsule_protocol.limits import DEFAULT_LIMITS
from capsule_protocol.messages import Message
from capsule_protocol.messages.execution import Error
from capsule_protocol.states import BULK

if TYPE_CHECKING:
    from capsule.keys import Credentials
    from capsule_protocol.limits import Limits

FEATURES = frozenset({"introspection", "comms", "progress", "stdin", "resume", "streams"})

OnMessage = Callable[[Message, Envelope], None]
OnLost = Callable[[str], None]


class Wire:
    """Connects when it is made; `greet` waits for the node. `on_lost` is told once, unless this end hangs up."""

    def __init__(
        self,
        address: str,
        on_message: OnMessage,
        on_lost: OnLost,
        credentials: Credentials | None = None,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self._address = address
        self._on_message = on_message
        self._on_lost = on_lost
        self._connection = Connection("client", "client", features=FEATURES, limits=limits)
        self._greeted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._over = False
        self._token = credentials.token if credentials is not None else ""
        self._carrier: Carrier
        if address.startswith(TCP):
            self._carrier = TcpCarrier(address, limits, credentials, self._take, self._hung_up)
        else:
            self._carrier = UnixCarrier(address, limits, self._take, self._broken, self._hung_up)

    @property
    def limits(self) -> Limits:
        """What both ends have agreed on."""
        return self._connection.limits

    async def greet(self, client: str, timeout: float) -> None:
        """Say which client this is, and wait for the answer. Raises NodeError, RemoteProtocolError."""
        hello = self._connection.hello().model_copy(update={"client": client, "token": self._token})
        self._carrier.send(self._connection.send(hello))
        try:
            async with asyncio.timeout(timeout):
                await self._greeted
        except TimeoutError:
            raise _unreachable(self._address, f"nobody answered within {timeout:g} s") from None

    def next_number(self, kind: str, execution: str) -> int:
        """The number that a message of an execution needs."""
        return self._connection.executions.next_number(kind, execution)

    def credit(self, stream: str) -> int:
        """How many bytes of a stream this end may still send."""
        return self._connection.streams.credit(stream)

    def transmit(self, envelope: Envelope) -> None:
        """Send. Raises LocalProtocolError for what is over a limit, or not due."""
        if not self._over:
            self._carrier.send(self._connection.transmit(envelope), bulk=envelope.type in BULK)

    def close(self) -> None:
        """Hang up, after what was said. Idempotent."""
        self._over = True
        self._carrier.close()

    def _take(self, frames: list[bytes]) -> None:
        if self._over:
            return
        self._connection.receive(frames)
        try:
            received = self._connection.next_event()
        except RemoteProtocolError as error:
            self._broken(error)
            return
        assert received is not NEED_DATA
        if self._greeted.done():
            self._on_message(*received)
        elif isinstance(received.message, Error):
            self._end(received.message.message, CapsuleError.from_dict(received.message.model_dump()))
        else:
            self._greeted.set_result(None)

    def _broken(self, error: RemoteProtocolError) -> None:
        self._end(f"the node broke the protocol: {error.message}", error)

    def _hung_up(self, refusal: NodeError | None = None) -> None:
        self._end("the node hung up", refusal or _unreachable(self._address, "there is no node"))

    def _end(self, why: str, error: CapsuleError) -> None:
        if self._over:
            return
        self._over = True
        if self._greeted.done():
            self._on_lost(why)
        else:
            self._greeted.set_exception(error)


def _unreachable(address: str, why: str) -> NodeError:
    return NodeError("node_unreachable", f"no node can be reached at {address}: {why}")
