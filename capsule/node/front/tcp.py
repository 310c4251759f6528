"""Clients of other machines: ZeroMQ over TCP, encrypted with CURVE, each with a key that the node knows."""

from __future__ import annotations

import ipaddress
import logging
import os
import socket
from typing import TYPE_CHECKING, Any, Final, Protocol

import zmq
from zmq.utils import z85

from capsule.node.auth.principals import INSECURE, Principal
from capsule.node.auth.zap import DOMAIN
from capsule.sockets import Drain
from capsule.stream import PeerBusyError
from capsule_protocol.errors import NodeError
from capsule_protocol.limits import DEFAULT_LIMITS

if TYPE_CHECKING:
    import asyncio

    from capsule.config import ServeConfig
    from capsule.node.auth.gate import Gate
    from capsule.node.front.carrier import Carrier
    from capsule.node.front.peer import Peer
    from capsule_protocol.envelope import Frames

logger = logging.getLogger("capsule.auth")

SCHEME: Final = "tcp://"
UNREAD = 10_000
"""Messages that may wait in ZeroMQ for one client; who lets more pile up is dropped, and may come back."""
WAITING = 1000
"""Messages of one client that ZeroMQ takes before the node does; then the client waits."""
HANDSHAKE = 5000
"""Milliseconds that a client may take to prove its key."""
_FAILED = int(zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL)
GOODBYE = 200
"""Milliseconds that the last words to clients may take."""


class Hall(Protocol):
    """What a listener needs of the front."""

    gate: Gate
    config: ServeConfig

    def meet(self, principal: Principal, carrier: Carrier) -> Peer:
        """A connection has been made."""

    def take(self, peer: Peer, frames: list[bytes]) -> None:
        """A message came."""


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
        router = self._bound(address)
        self.address = str(router.getsockopt(zmq.LAST_ENDPOINT).decode().rstrip("\0"))  # type: ignore[union-attr]
        self._drain = _Router(router, loop, self._take)
        self._monitor = Drain(router.get_monitor_socket(_FAILED), loop, self._failed)
        self._drain.start()
        self._monitor.start()

    def close(self) -> None:
        """Take nobody any more; those that are here stay, and the socket ends with the last of them."""
        self._closing = True
        self._drain.unbind(self.address)
        self._close_if_empty()

    def send(self, identity: bytes, frames: Frames) -> None:
        """Send to one connection. Raises PeerBusyError if it takes nothing any more, or is gone."""
        if self._drain.closed:
            return
        try:
            self._drain.send([identity, *frames])
        except zmq.ZMQError as error:  # Again: too much waits; EHOSTUNREACH: it is gone
            raise PeerBusyError from error

    def forget(self, identity: bytes) -> None:
        """The connection is over; what it says from now on is a stranger's."""
        self._connections.pop(identity, None)
        self._close_if_empty()

    def _close_if_empty(self) -> None:
        if self._closing and not self._connections and not self._drain.closed:
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
        connection = self._connections.get(identity)
        if connection is None:
            connection = self._connections[identity] = TcpConnection(self, identity, self._drain.first)
        self.hall.take(connection.peer, message)
        return not self._drain.closed

    def _failed(self, _frames: list[Any]) -> bool:
        """ZeroMQ has hung up on somebody before the authenticator was asked."""
        form = "refused: principal=unknown action=connect code=access_denied at %s: no key, or none for this node"
        logger.warning(form, self.address)
        return True


class TcpConnection:
    """One client's connection: a carrier of the front's. Made by its first message."""

    def __init__(self, listener: TcpListener, identity: bytes, first: zmq.Frame) -> None:
        self._listener = listener
        self._identity = identity
        self._descriptor, self._name = _socket_of(first)
        principal = INSECURE if listener.insecure else listener.hall.gate.by_key(str(first.get("User-Id")))
        self.peer = listener.hall.meet(principal, self)
        self.peer.encrypted = not listener.insecure

    def send(self, frames: Frames, *, bulk: bool = False) -> None:  # noqa: ARG002 - ZeroMQ keeps the order
        """Send soon. Raises PeerBusyError."""
        self._listener.send(self._identity, frames)

    async def flushed(self) -> None:
        """ZeroMQ tells nothing of that; it sends what it has after `close`."""

    def close(self) -> None:
        """Forget it; ZeroMQ sends what was said, and then the system ends the connection."""
        self._listener.forget(self._identity)
        self._listener.loop.call_later(GOODBYE / 1000, self._cut)

    def _cut(self) -> None:
        """ZeroMQ hangs up on nobody. The number may be another connection's by now, so the other end is compared."""
        try:
            with _copy(self._descriptor) as connected:
                if connected.getpeername() == self._name:
                    connected.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # it is over already


class _Router(Drain):
    """Keeps the first frame of a message, which knows from where and from whom it came."""

    first: zmq.Frame

    def unbind(self, address: str) -> None:
        """Listen no more."""
        self._socket.unbind(address)

    def disable_monitor(self) -> None:
        """Have ZeroMQ tell no more of connections."""
        self._socket.disable_monitor()

    def _receive(self) -> list[Any]:
        self.first = self._socket.recv(zmq.NOBLOCK, copy=False)
        frames: list[Any] = [self.first.bytes]
        while self._socket.getsockopt(zmq.RCVMORE):
            frames.append(self._socket.recv(zmq.NOBLOCK))
        return frames


def _socket_of(frame: zmq.Frame) -> tuple[int, Any]:
    """The descriptor that a message came through, and who is at its other end; -1: it is closed already."""
    try:
        descriptor = int(frame.get(zmq.SRCFD))
        with _copy(descriptor) as connected:
            return descriptor, connected.getpeername()
    except (OSError, zmq.ZMQError):
        return -1, None


def _copy(descriptor: int) -> socket.socket:
    """A descriptor of the same connection. Raises OSError, and leaves nothing, if the number is another thing's now."""
    copy = os.dup(descriptor)
    try:
        return socket.socket(fileno=copy)
    except OSError:
        os.close(copy)
        raise


def _is_loopback(address: str) -> bool:
    host = address.removeprefix(SCHEME).rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name, an interface, or `*`
        return host == "localhost"
