"""The five sockets of one kernel. They are bound once, and stay when the worker behind them is replaced."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import zmq

from capsule.jupyter.connection import CHANNELS, Connection
from capsule.jupyter.messages import Message, Messages
from capsule.sockets import Drain
from capsule_protocol.errors import NodeError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

logger = logging.getLogger("capsule.jupyter")

UNREAD = 100_000
"""Messages that may wait for one reader of a socket; what comes on top is lost to this reader alone."""
FAREWELL = 500
"""Milliseconds that ZeroMQ has for what was said last."""
_KINDS = {"shell": zmq.ROUTER, "control": zmq.ROUTER, "stdin": zmq.ROUTER, "hb": zmq.ROUTER, "iopub": zmq.XPUB}

OnMessage = Callable[[list[bytes], Message], None]
"""Takes a request: the identities of who sent it, and the message."""


class Sockets:
    """Binds when it is made. Raises NodeError `address_in_use` if one of the ports is taken."""

    def __init__(self, name: str, connection: Connection, handlers: Mapping[str, OnMessage]) -> None:
        """`handlers` by channel: `shell`, `control` and `stdin`."""
        self._topic = f"kernel.{name}."
        self._handlers = handlers
        self._loop = asyncio.get_running_loop()
        self._messages = Messages(connection.key.encode())
        self._context: zmq.Context[Any] = zmq.Context()
        self._drains: dict[str, Drain] = {}
        self._unsent: list[tuple[Drain, list[Any]]] = []
        try:
            self.connection = self._bind(connection)
        except BaseException:
            self._context.destroy(linger=0)
            raise
        for drain in self._drains.values():
            drain.start()

    def publish(self, kind: str, content: Message, parent: Message, **more: Any) -> None:
        """Tell everybody who listens. `more`: `metadata` and `buffers`."""
        self._send("iopub", kind, content, parent, [(self._topic + kind).encode()], **more)

    def reply(self, channel: str, kind: str, content: Message, parent: Message, to: list[bytes], **more: Any) -> None:
        """Answer who has asked. `more`: `metadata`."""
        self._send(channel, kind, content, parent, to, **more)

    def pause(self, channel: str) -> None:
        """Take no more requests: ZeroMQ holds them back, and in the end their senders."""
        self._drains[channel].pause()

    def resume(self, channel: str) -> None:
        """Take requests again."""
        self._drains[channel].resume()

    async def close(self) -> None:
        """Say what was said last, then give the ports back. Idempotent."""
        self._send_all()
        for drain in self._drains.values():
            drain.close(FAREWELL)
        await asyncio.to_thread(self._context.term)

    def _bind(self, connection: Connection) -> Connection:
        ports: dict[str, int] = {}
        for channel in CHANNELS:
            socket = self._context.socket(_KINDS[channel])
            socket.setsockopt(zmq.SNDHWM, UNREAD)
            if connection.transport == "tcp" and ":" in connection.ip:
                socket.setsockopt(zmq.IPV6, 1)
            if channel == "iopub":
                socket.setsockopt(zmq.XPUB_VERBOSE, 1)  # or only the first subscriber would be welcomed
            else:
                socket.setsockopt(zmq.ROUTER_HANDOVER, 1)  # a client that comes back is the same one
            ports[f"{channel}_port"] = _bind_one(socket, connection, channel)
            self._drains[channel] = Drain(socket, self._loop, self._reader(channel))
        return connection.model_copy(update=ports)

    def _reader(self, channel: str) -> Callable[[list[Any]], bool]:
        if channel == "hb":
            return self._echo
        if channel == "iopub":
            return self._welcome
        handler = self._handlers[channel]

        def take(frames: list[bytes]) -> bool:
            try:
                identities, message = self._messages.read(frames)
                _check(message)
            except Exception as error:  # noqa: BLE001 - whatever a stranger may send
                logger.warning("a message on %s was not taken: %s", channel, error)
                return True
            try:
                handler(identities, message)
            except Exception:  # or nothing would be read here any more
                logger.exception("%s failed on %s", message["msg_type"], channel)
            return True

        return take

    def _echo(self, frames: list[bytes]) -> bool:
        self._drains["hb"].send(frames)
        return True

    def _welcome(self, frames: list[bytes]) -> bool:
        """Whoever subscribes is told that from here on nothing is missed."""
        asked = frames[0]
        if asked[:1] == b"\x01":
            topic = asked[1:].decode("utf-8", "replace")
            self._send("iopub", "iopub_welcome", {"subscription": topic}, {}, [asked[1:]])
        return True

    def _send(
        self,
        channel: str,
        kind: str,
        content: Message,
        parent: Message,
        to: Sequence[bytes],
        metadata: Message | None = None,
        buffers: Sequence[bytes] = (),
    ) -> None:
        drain = self._drains[channel]
        if drain.closed:
            return
        frames = self._messages.make(kind, content, parent, to, metadata)
        if not self._unsent:
            self._loop.call_soon(self._send_all)
        self._unsent.append((drain, [*frames, *buffers]))

    def _send_all(self) -> None:
        """What was said in one turn of the loop, in one go: ZeroMQ is woken once for it, and not for each message."""
        unsent, self._unsent = self._unsent, []
        for drain, frames in unsent:
            if not drain.closed:
                drain.send(frames)


def _check(message: Message) -> None:
    """Whether its header can be answered. Content that is no map says nothing: what it should have is missing.

    Raises TypeError.
    """
    for name in ("msg_id", "msg_type"):
        if not isinstance(message["header"][name], str):
            raise TypeError(f"{name} is {message['header'][name]!r:.80}")
    if not isinstance(message["content"], dict):
        message["content"] = {}


def _bind_one(socket: zmq.Socket[bytes], connection: Connection, channel: str) -> int:
    """Bind; answers the port."""
    port: int = getattr(connection, f"{channel}_port")
    if connection.transport == "ipc" and port == 0:
        port = CHANNELS.index(channel) + 1
        connection = connection.model_copy(update={f"{channel}_port": port})
    address = connection.address(channel)
    try:
        socket.bind(address)
    except zmq.ZMQError as error:
        code = "address_in_use" if error.errno == zmq.EADDRINUSE else "address_refused"
        raise NodeError(code, f"the kernel cannot listen at {address} ({channel}): {error.strerror}") from None
    return port or int(socket.getsockopt_string(zmq.LAST_ENDPOINT).rpartition(":")[2])
