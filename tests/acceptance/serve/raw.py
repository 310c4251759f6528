"""A connection to a node that says what it is told, right or wrong, and waits where it stands."""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

from capsule_protocol.codec import decode, encode
from capsule_protocol.envelope import Envelope
from capsule_protocol.framing import NEED_DATA, FrameBuffer, pack
from capsule_protocol.limits import Limits
from tests.acceptance.serve.support import LONG

if TYPE_CHECKING:
    from collections.abc import Sequence

    from capsule_protocol.envelope import Buffer

ANYTHING = Limits(message_bytes=2**40, buffers=2**20)
"""Nothing is refused on this side."""


def hello(client: str = "c_hostile") -> Envelope:
    return Envelope("hello", {"versions": ["1.0"], "role": "client", "client": client})


class Raw:
    """The test's own end of a connection."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(LONG)
        self.socket.connect(address.removeprefix("ipc://"))
        self._incoming = FrameBuffer()

    def write(self, data: bytes) -> bool:
        """Bytes as they are; False if the node has hung up."""
        with suppress(BrokenPipeError, ConnectionResetError):
            self.socket.sendall(data)
            return True
        return False

    def send(self, frames: Sequence[Buffer]) -> bool:
        """A message of these frames."""
        return self.write(b"".join(pack(frames, ANYTHING)))

    def say(self, kind: str, body: dict[str, Any], session: str = "", execution: str = "", id_: str = "") -> bool:
        """A message as it should be."""
        return self.send(encode(Envelope(kind, body, id_, session, execution)))

    def hear(self) -> Envelope | None:
        """The next message; None: the node has hung up."""
        try:
            while (frames := self._incoming.next_message()) is NEED_DATA:
                data = self.socket.recv(2**18)
                if not data:
                    return None
                self._incoming.feed(data)
        except ConnectionResetError:
            return None
        return decode(frames)

    def answer(self, reply_to: str = "") -> Envelope:
        """The next message, which there is; or the one that answers this request."""
        while (message := self.hear()) is not None:
            if message.body.get("reply_to", "") == reply_to:
                return message
        raise AssertionError("the node has hung up")

    def greet(self, client: str = "c_hostile") -> Envelope:
        """Say hello, and what the node says to that."""
        self.send(encode(hello(client)))
        return self.answer()

    def open(self, **body: Any) -> str:
        """The id of a new session."""
        self.say("open", body, id_="m_open")
        answer = self.answer("m_open")
        assert answer.type == "ready", answer
        return answer.session

    def stop_talking(self) -> None:
        """No more will be said; what the node says is heard still."""
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Hang up without a word."""
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
