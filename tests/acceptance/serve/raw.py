"""A connection to a node that says what it is told, right or wrong. `Raw` is the carrier that the node uses."""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

import zmq

from capsule_protocol.codec import decode, encode
from capsule_protocol.envelope import Envelope
from capsule_protocol.framing import NEED_DATA, FrameBuffer, pack
from capsule_protocol.limits import Limits
from tests.acceptance.serve.support import LONG

if TYPE_CHECKING:
    from collections.abc import Sequence

    from capsule_protocol.envelope import Buffer

HUGE = Limits(message_bytes=2**40, buffers=2**20)
"""Nothing is refused on this side."""


def hello(client: str = "c_hostile") -> Envelope:
    return Envelope("hello", {"versions": ["1.0"], "role": "client", "client": client})


class Connection:
    """What both carriers have in common."""

    def send(self, frames: Sequence[Buffer]) -> None:
        """Send a message of these frames; to one who has hung up, nothing."""
        raise NotImplementedError

    def receive(self, wait: float = LONG) -> list[bytes] | None:
        """The frames of the next message; None: the node has hung up, or said nothing for so long."""
        raise NotImplementedError

    def close(self) -> None:
        """Hang up."""
        raise NotImplementedError

    def say(self, kind: str, body: dict[str, Any], session: str = "", execution: str = "", id_: str = "") -> None:
        """Send a message as it should be."""
        self.send(encode(Envelope(kind, body, id_, session, execution)))

    def hear(self) -> Envelope:
        """The next message."""
        frames = self.receive()
        assert frames is not None
        return decode(frames)

    def greet(self, client: str = "c_hostile") -> Envelope:
        """Say hello, and what the node says to that."""
        self.send(encode(hello(client)))
        return self.hear()

    def open(self, **body: Any) -> str:
        """The id of a new session."""
        self.say("open", body, id_="m_open")
        while True:
            answer = self.hear()
            if answer.body.get("reply_to") == "m_open":
                assert answer.type == "ready", answer
                return answer.session

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class StreamConnection(Connection):
    """A Unix stream socket, with the protocol's framing."""

    def __init__(self, address: str) -> None:
        self.socket = connected(address)
        self._buffer = FrameBuffer()

    def send(self, frames: Sequence[Buffer]) -> None:
        self.write(b"".join(pack(frames, HUGE)))

    def write(self, data: bytes) -> None:
        """Bytes as they are."""
        with suppress(BrokenPipeError, ConnectionResetError):
            self.socket.sendall(data)

    def receive(self, wait: float = LONG) -> list[bytes] | None:
        self.socket.settimeout(wait)
        try:
            while (frames := self._buffer.next_message()) is NEED_DATA:
                data = self.socket.recv(2**18)
                if not data:
                    return None
                self._buffer.feed(data)
        except (TimeoutError, ConnectionResetError):
            return None
        finally:
            self.socket.settimeout(LONG)
        return frames

    def close(self) -> None:
        self.socket.close()


class ZmqConnection(Connection):
    """A DEALER socket."""

    def __init__(self, address: str) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.socket = self._context.socket(zmq.DEALER)
        self.socket.connect(address)

    def send(self, frames: Sequence[Buffer]) -> None:
        self.socket.send_multipart(frames)

    def receive(self, wait: float = LONG) -> list[bytes] | None:
        return self.socket.recv_multipart() if self.socket.poll(int(wait * 1000)) else None

    def close(self) -> None:
        self._context.destroy(linger=100)


def connected(address: str) -> socket.socket:
    """A plain socket to the node."""
    raw = socket.socket(socket.AF_UNIX)
    raw.settimeout(LONG)
    raw.connect(address.removeprefix("ipc://"))
    return raw


Raw = ZmqConnection
