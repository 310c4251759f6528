"""Clients of other machines: ZeroMQ over TCP, encrypted with CURVE, each with a key that the node knows."""

from __future__ import annotations

import ipaddress
import logging
from typing import TYPE_CHECKING, Any, Final, Protocol

import zmq
from zmq.utils import z85

from capsule.lane import Lane
from capsule.node.auth.principals import INSECURE, Principal
from capsule.node.auth.zap import DOMAIN
from capsule.node.front.lobby import Lobby
from capsule.node.front.router import CAME, EARLY, EVENT, WENT, Router, mark_of
from capsule.sockets import Drain
from capsule.stream import PeerBusyError
from capsule_protocol.errors import NodeError, RemoteProtocolError
from capsule_protocol.limits import DEFAULT_LIMITS

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence

    from capsule.node.auth.gate import Gate
    from capsule.node.front.accepted import Accepted
    from capsule.node.front.carrier import Carrier
    from capsule.node.front.peer import Peer
    from capsule.settings.service import ServeConfig
    from capsule_protocol.envelope import Buffer, Frames

logger = logging.getLogger("capsule.auth")

SCHEME: Final = "tcp://"
UNREAD = 10_000
"""Messages that may wait in ZeroMQ for one client; who lets more pile up is dropped, and may come back."""
WAITING = 1000
"""Messages of one client that ZeroMQ takes before the node does; then the client waits."""
HANDSHAKE = 30_000
"""Milliseconds that a client may take to prove its key, if the node has no descriptor to wait for less by."""
GOODBYE = 200
"""Milliseconds that the last words to clients may take."""


class Hall(Protocol):
    """What a listener needs of the front."""

    gate: Gate
    config: ServeConfig
    offences: int

    def meet(self, principal: Principal, carrier: Carrier) -> Peer:
        """A connection has been made."""

    def take(self, peer: Peer, frames: list[bytes]) -> None:
        """A message came."""

    def broken(self, peer: Peer, error: RemoteProtocolError) -> None:
        """Something came that is no message."""

    def drop(self, peer: Peer) -> None:
        """The connection is over."""


class TcpListener:
    """Takes clients at one address until `close`. Raises NodeError if it cannot, or if that would not be safe."""

    def __init__(self, hall: Hall, address: str, loop: asyncio.AbstractEventLoop) -> None:
        self.hall = hall
        self.loop = loop
        self.insecure = hall.config.insecure
        if self.insecure and not _is_loopback(address):
            message = f"{address} would take clients of other machines without encryption"
            raise NodeError("address_refused", message, hint="Listen at 127.0.0.1, or without `insecure`.")
        self._connections: dict[bytes, TcpConnection] = {}
        self._closing = False
        self._early = False  # somebody hung up in the handshake; the next event says on which connection
        router = self._bound(address)
        self.address = str(router.getsockopt(zmq.LAST_ENDPOINT).decode().rstrip("\0"))  # type: ignore[union-attr]
        self.lobby = Lobby(self, loop, encrypted=not self.insecure)
        self._drain = Router(router, loop, self._take)
        self._monitor = Drain(self._drain.watch(), loop, self._on_event)
        self._monitor.start()
        self._drain.start()

    def close(self) -> None:
        """Take nobody any more; those that are here stay, and the socket ends with the last of them."""
        self._closing = True
        self._drain.unbind(self.address)
        self._close_if_empty()

    def send(self, identity: bytes, frames: Sequence[Buffer], *, copy: bool = True) -> None:
        """Send to one connection. Raises PeerBusyError if it takes nothing any more, or is gone."""
        if self._drain.closed:
            return
        try:
            self._drain.send([identity, *frames], copy=copy)
        except zmq.ZMQError as error:  # Again: too much waits; EHOSTUNREACH: it is gone
            raise PeerBusyError from error

    def forget(self, connection: TcpConnection) -> None:
        """The connection is over; what it still says is not heard."""
        if self._connections.get(connection.identity) is connection:
            del self._connections[connection.identity]
        self._close_if_empty()

    # --- for the lobby ---

    def catch_up(self) -> None:
        """Take what ZeroMQ has to hand over."""
        self._drain.catch_up()

    def left(self, accepted: Accepted, offends: bool) -> None:
        """A connection is over."""
        self._drain.catch_up()
        if offends:
            error = RemoteProtocolError(
                "invalid_message", "what came is no frame, or too large, or cannot be decrypted"
            )
            self._offended(accepted, error, "access_denied")
        self._drop(accepted)

    def refused(self, name: str, code: str) -> None:
        """Somebody who never became a client sent what cannot be read."""
        self.hall.offences += 1
        form = "refused: principal=unknown from=%s action=connect code=%s at %s: no key, or none for this node"
        logger.warning(form, name, code, self.address)

    def overfull(self, accepted: Accepted, limit: int) -> None:
        """Somebody sends a message without an end, or much before a greeting."""
        self.lobby.end(accepted, reset=True)
        error = RemoteProtocolError("message_too_large", f"more than {limit} bytes came without the end of a message")
        self._offended(accepted, error, error.code)
        self._drop(accepted)

    def expired(self, accepted: Accepted) -> None:
        """Whoever it is has had the time to greet."""
        logger.info("a connection from %s has not greeted in time: it is ended", accepted.name)
        self.lobby.end(accepted, reset=True)
        self._drop(accepted)

    # --- inside ---

    def _offended(self, accepted: Accepted, error: RemoteProtocolError, code: str) -> None:
        """Somebody has sent what is no message; `code` is what to say of one who is no client yet."""
        if isinstance(accepted.taker, TcpConnection):
            self.hall.broken(accepted.taker.peer, error)
        else:
            self.refused(accepted.name, code)

    def _drop(self, accepted: Accepted) -> None:
        if isinstance(accepted.taker, TcpConnection):
            self.hall.drop(accepted.taker.peer)

    def _close_if_empty(self) -> None:
        if self._closing and not self._connections and not self._drain.closed:
            self.lobby.close()
            self._drain.disable_monitor()
            self._monitor.close()
            self._drain.close(GOODBYE)

    def _bound(self, address: str) -> zmq.Socket[bytes]:
        if self.insecure:
            router = self.hall.gate.context().socket(zmq.ROUTER)
        else:
            context, secret = self.hall.gate.encrypted()
            router = context.socket(zmq.ROUTER)
            router.setsockopt(zmq.CURVE_SERVER, 1)
            router.setsockopt(zmq.CURVE_SECRETKEY, z85.encode(secret))
            router.setsockopt(zmq.ZAP_DOMAIN, DOMAIN)
        router.setsockopt(zmq.ROUTER_MANDATORY, 1)
        router.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE)
        router.setsockopt(zmq.SNDHWM, UNREAD)
        router.setsockopt(zmq.RCVHWM, WAITING)
        router.setsockopt(zmq.MAXMSGSIZE, DEFAULT_LIMITS.message_bytes)
        router.setsockopt(zmq.IPV6, int("[" in address))
        try:
            router.bind(address)
        except zmq.ZMQError as error:
            router.close(0)
            raise NodeError("address_refused", f"cannot listen at {address}: {error.strerror}") from error
        return router

    def _take(self, frames: list[Any]) -> bool:
        identity, *message = frames
        first = self._drain.first
        connection = self._connections.get(identity)
        if connection is None or not connection.carried(first):
            connection = self._meet(identity, first)
        if connection is not None:
            connection.accepted.took(message)
            self.hall.take(connection.peer, message)
        return not self._drain.closed

    def _meet(self, identity: bytes, first: zmq.Frame) -> TcpConnection | None:
        """A connection whose first message this is; None: it is over, or about to be."""
        earlier = self._connections.get(identity)
        if earlier is not None:  # a client chooses its identity, and one may choose another's
            self.hall.drop(earlier.peer)
        self._monitor.drain_rest()  # or the number may still mean a connection that is over
        accepted = self.lobby.find(int(first.get(zmq.SRCFD)))
        if accepted is None or accepted.closing:
            return None
        self._drop(accepted)
        connection = self._connections[identity] = TcpConnection(self, identity, first, accepted)
        return connection

    def _on_event(self, frames: list[Any]) -> bool:
        event, value = EVENT.unpack(frames[0])
        if event == CAME:
            self.lobby.add(value, self.hall.config.greeting_timeout)
        elif event == WENT:
            self.lobby.lose(value, early=self._early)
        self._early = event == EARLY
        return not self._drain.closed


class TcpConnection:
    """One client's connection: a carrier of the front's. Made by its first message."""

    def __init__(self, listener: TcpListener, identity: bytes, first: zmq.Frame, accepted: Accepted) -> None:
        self._listener = listener
        self.identity = identity
        self.accepted = accepted
        self._mark = mark_of(first)
        principal = INSECURE if listener.insecure else listener.hall.gate.by_key(self._mark)
        self.peer = listener.hall.meet(principal, self)
        self.peer.encrypted = not listener.insecure
        accepted.taker = self
        self._bulk = Lane(listener.loop, self._send_uncopied, self._go_on, UNREAD)

    @property
    def greeted(self) -> bool:
        """Whether its client has said who it is, and may be here."""
        return self.peer.greeted

    def carried(self, first: zmq.Frame) -> bool:
        """Whether a message came over this connection, and not over one with the same identity."""
        return int(first.get(zmq.SRCFD)) == self.accepted.number and mark_of(first) == self._mark

    def send(self, frames: Frames, *, bulk: bool = False) -> None:
        """Send soon. Raises PeerBusyError."""
        if bulk:
            self._bulk.send(frames)
        else:
            self._listener.send(self.identity, frames)

    async def flushed(self) -> None:
        """ZeroMQ tells nothing of that; it sends what it has after `close`."""

    def close(self) -> None:
        """Forget it; ZeroMQ sends what was said, and then the system ends the connection."""
        self.accepted.closing = True
        self._bulk.close()
        self._listener.forget(self)
        if not self.accepted.over:
            self._listener.loop.call_later(GOODBYE / 1000, self._listener.lobby.end, self.accepted)

    def _send_uncopied(self, frames: Sequence[Buffer]) -> None:
        self._listener.send(self.identity, frames, copy=False)

    def _go_on(self) -> None:
        try:
            self._bulk.go_on()
        except PeerBusyError:  # it is gone
            self._listener.hall.drop(self.peer)


def _is_loopback(address: str) -> bool:
    host = address.removeprefix(SCHEME).rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name, an interface, or `*`
        return host == "localhost"
