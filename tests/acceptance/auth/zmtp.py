"""A connection to a node at `tcp://` that speaks ZeroMQ's protocol itself, right or wrong, as no ZeroMQ socket would.

ZMTP 3.0 (https://rfc.zeromq.org/spec/23/) with the mechanism CURVE (https://rfc.zeromq.org/spec/26/).
"""

from __future__ import annotations

import itertools
import socket
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Self

from nacl.public import Box, PrivateKey, PublicKey

from capsule_protocol.codec import decode, encode
from capsule_protocol.envelope import Envelope
from tests.acceptance.serve.raw import hello
from tests.acceptance.serve.support import LONG

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from capsule.keys import Credentials
    from capsule_protocol.envelope import Buffer

MORE, COMMAND = 1, 4
_LARGE = 2
_GREETING = struct.Struct("10s 2s 20s B 31x")
GREETING: Final = _GREETING.pack(b"\xff" + bytes(8) + b"\x7f", b"\x03\x00", b"CURVE", 0)
"""How a connection begins that is to be encrypted."""


def frame(data: bytes, flags: int = 0) -> bytes:
    """A frame as it travels."""
    if len(data) < 256:
        return bytes([flags, len(data)]) + data
    return struct.pack(">BQ", flags | _LARGE, len(data)) + data


def connected(address: str) -> socket.socket:
    """A TCP connection."""
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    return socket.create_connection((host, int(port)), timeout=LONG)


def heard_out(stranger: socket.socket) -> None:
    """Wait until the node has hung up; what it has not read of ours makes that a reset."""
    with suppress(ConnectionResetError):
        while stranger.recv(1024):
            continue


class RawTcp:
    """The test's own end of a connection. With a key it is encrypted. `greet` says hello as a client does."""

    def __init__(self, address: str, key: Credentials, identity: bytes = b"") -> None:
        self.socket = connected(address)
        self._file = self.socket.makefile("rb", buffering=2**16)
        self._numbers = itertools.count(1)
        self._received = 0
        self._box: Box
        self._shake(PrivateKey(key.secret), PublicKey(key.server), identity)

    def write(self, data: bytes) -> bool:
        """Bytes as they are; False if the node has hung up."""
        with suppress(BrokenPipeError, ConnectionResetError):
            self.socket.sendall(data)
            return True
        return False

    def sealed(self, data: bytes, flags: int = 0) -> bytes:
        """One frame of a message, encrypted, as it travels."""
        return frame(self._sealed(b"\x07MESSAGE", b"CurveZMQMESSAGEC", bytes([flags]) + data))

    def sealed_message(self, frames: Sequence[Buffer]) -> bytes:
        """A message, encrypted, as it travels."""
        last = len(frames) - 1
        return b"".join(self.sealed(bytes(one), MORE * (at < last)) for at, one in enumerate(frames))

    def send(self, frames: Sequence[Buffer]) -> bool:
        """A message of these frames."""
        return self.write(self.sealed_message(frames))

    def say(self, kind: str, body: dict[str, Any], session: str = "", execution: str = "", id_: str = "") -> bool:
        """A message as it should be."""
        return self.send(encode(Envelope(kind, body, id_, session, execution)))

    def hear(self) -> Envelope | None:
        """The next message; None: the node has hung up."""
        frames: list[bytes] = []
        try:
            while True:
                flags, data = self._opened()
                frames.append(data)
                if not flags & MORE:
                    return decode(frames)
        except (EOFError, ConnectionResetError):
            return None

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

    def hung_up(self) -> bool:
        """Wait until the node has; whatever it says meanwhile."""
        with suppress(ConnectionResetError):
            while self._file.read(1):
                continue
        return True

    def close(self) -> None:
        """Hang up without a word."""
        self._file.close()
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _shake(self, own: PrivateKey, server: PublicKey, identity: bytes) -> None:
        """What both ends say before the first message."""
        short = PrivateKey.generate()
        self.write(GREETING)
        self._read(len(GREETING))
        self._box = Box(short, server)
        hello = self._sealed(b"", b"CurveZMQHELLO---", bytes(64))
        self.write(frame(b"\x05HELLO\x01\x00" + bytes(72) + bytes(short.public_key) + hello, COMMAND))
        welcome = self._command(b"\x07WELCOME")
        inside = self._box.decrypt(welcome[16:], b"WELCOME-" + welcome[:16])
        theirs, cookie = PublicKey(inside[:32]), inside[32:]
        self._box = Box(short, theirs)
        vouch = Box(own, theirs).encrypt(bytes(short.public_key) + bytes(server), b"VOUCH---" + bytes(16)).ciphertext
        told = _metadata([(b"Socket-Type", b"DEALER"), (b"Identity", identity)])
        mine = bytes(own.public_key) + bytes(16) + vouch + told
        self.write(frame(self._sealed(b"\x08INITIATE" + cookie, b"CurveZMQINITIATE", mine), COMMAND))
        self._command(b"\x05READY")

    def _sealed(self, head: bytes, nonce: bytes, data: bytes) -> bytes:
        number = next(self._numbers).to_bytes(8, "big")
        return head + number + self._box.encrypt(data, nonce + number).ciphertext

    def _opened(self) -> tuple[int, bytes]:
        """The flags and the content of the next frame."""
        data = self._frame()
        inside = self._box.decrypt(data[16:], b"CurveZMQMESSAGES" + data[8:16])
        return inside[0], inside[1:]

    def _command(self, name: bytes) -> bytes:
        data = self._frame()
        assert data.startswith(name), data[:16]
        return data[len(name) :]

    def _frame(self) -> bytes:
        flags, size = self._read(2)
        if flags & _LARGE:
            size = int.from_bytes(bytes([size]) + self._read(7), "big")
        return self._read(size)

    def _read(self, size: int) -> bytes:
        data: bytes = self._file.read(size)
        if len(data) < size:
            raise EOFError
        return data


def _metadata(items: Iterable[tuple[bytes, bytes]]) -> bytes:
    return b"".join(bytes([len(name)]) + name + struct.pack(">I", len(value)) + value for name, value in items)
