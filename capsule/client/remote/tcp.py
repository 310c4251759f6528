"""The connection to a node on another machine: ZeroMQ over TCP, encrypted where the client has a key."""

from __future__ import annotations

import asyncio
import struct
import sys
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import zmq
from zmq.utils import z85

from capsule import keys
from capsule.lane import Lane, hold_little
from capsule.sockets import Drain
from capsule_protocol.errors import NodeError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from capsule.client.remote.carrier import OnFrames
    from capsule.keys import Credentials
    from capsule_protocol.envelope import Buffer
    from capsule_protocol.limits import Limits

NEVER_AGAIN = 2**30 // 1000
"""Milliseconds until ZeroMQ would connect again: what is sent twice, and what not, is for the link to decide."""
GOODBYE = 200
"""Milliseconds that the last words may take."""
_FAILED = int(zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL)
_REFUSED = int(zmq.EVENT_HANDSHAKE_FAILED_AUTH)
_ENDED = int(zmq.EVENT_DISCONNECTED | zmq.EVENT_CLOSED | zmq.EVENT_CONNECT_RETRIED) | _FAILED | _REFUSED
_CONNECTED = int(zmq.EVENT_CONNECTED)
_EVENT = struct.Struct("=HI")


class TcpCarrier:
    """One connection. `on_ended` is told, once, that nothing more will come, and why if the node does not want us."""

    def __init__(
        self,
        address: str,
        limits: Limits,
        credentials: Credentials | None,
        on_frames: OnFrames,
        on_ended: Callable[[NodeError | None], None],
    ) -> None:
        loop = asyncio.get_running_loop()
        self._address = address
        self._encrypted = credentials is not None
        self._on_frames = on_frames
        self._on_ended = on_ended
        self._there = False  # somebody who takes what we say
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.SNDHWM, 0)
        self._socket.setsockopt(zmq.IPV6, int("[" in address))
        self._socket.setsockopt(zmq.MAXMSGSIZE, limits.message_bytes)
        self._socket.setsockopt(zmq.RECONNECT_IVL, NEVER_AGAIN)
        if credentials is not None:
            _encrypt(self._socket, credentials)
        self._bulk = Lane(loop, partial(self._send, copy=False), self._go_on, sys.maxsize)
        self._drain = Drain(self._socket, loop, self._take)
        self._monitor = Drain(self._socket.get_monitor_socket(_ENDED | _CONNECTED), loop, self._on_event)
        self._connect()
        self._drain.start()
        self._monitor.start()

    def send(self, frames: Sequence[Buffer], *, bulk: bool = False) -> None:
        """Send soon; what is no bulk overtakes what is."""
        if bulk:
            self._bulk.send(frames)
        else:
            self._send(frames)

    def _send(self, frames: Sequence[Buffer], *, copy: bool = True) -> None:
        if self._drain.closed:
            return
        try:
            self._drain.send(frames, copy=copy)
        except zmq.Again:
            self._there = False  # there is no connection any more, which the monitor is about to tell

    def close(self) -> None:
        """Hang up, after what was said. Idempotent."""
        if not self._drain.closed:
            self._bulk.close()
            self._socket.disable_monitor()
            self._monitor.close()
            self._drain.close(GOODBYE if self._there else 0)
            self._context.term()

    def _go_on(self) -> None:
        self._bulk.go_on()

    def _connect(self) -> None:
        try:
            self._socket.connect(self._address)
        except zmq.ZMQError as error:
            self.close()
            message = f"no node can be reached at {self._address}: {error.strerror}"
            raise NodeError("node_unreachable", message, retryable=False) from error

    def _take(self, frames: list[Any]) -> bool:
        self._there = True
        self._on_frames(frames)
        return not self._drain.closed

    def _on_event(self, frames: list[Any]) -> bool:
        event, value = _EVENT.unpack(frames[0])
        if event == _CONNECTED:
            with suppress(OSError):  # it is over already
                hold_little(value)
            return True
        self._monitor.pause()  # one reason is enough
        self._there = False
        if event == _REFUSED:
            self._on_ended(NodeError("access_denied", f"the node at {self._address} does not accept the key"))
        elif event & _FAILED:
            self._on_ended(self._failed())
        else:
            self._on_ended(None)
        return False

    def _failed(self) -> NodeError:
        """The node hung up before the ends had understood each other. It may have been about to end: retryable."""
        if self._encrypted:
            message = f"{self._address} hung up during the handshake: it has another server key, or no encryption"
            return NodeError("access_denied", message, retryable=True)
        message = f"the node at {self._address} wants a key"
        hint = "Pass `key`, or set CAPSULE_KEY; `capsule keys new` on the node makes one."
        return NodeError("access_denied", message, hint=hint, retryable=True)


def _encrypt(socket: zmq.Socket[bytes], credentials: Credentials) -> None:
    """Use the key of the credentials; beside a token any key will do, for it proves nothing."""
    secret = credentials.secret or keys.new_secret()
    socket.setsockopt(zmq.CURVE_SERVERKEY, z85.encode(credentials.server))
    socket.setsockopt(zmq.CURVE_PUBLICKEY, z85.encode(keys.public_key(secret)))
    socket.setsockopt(zmq.CURVE_SECRETKEY, z85.encode(secret))
