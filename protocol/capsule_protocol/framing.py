"""Framing for byte transports (pipes, TCP): multipart messages in a stream of bytes. ZeroMQ needs none of it.

A message is its size (u64: all that follows), the number of frames (u32), the size of each frame (u64), then the
frames; numbers are big-endian. The size in front lets a receiver step over a message that it refuses, so the
link stays usable.
"""

from __future__ import annotations

import struct
from enum import Enum
from typing import TYPE_CHECKING, Final, Literal

from capsule_protocol.errors import LocalProtocolError, RemoteProtocolError
from capsule_protocol.limits import DEFAULT_LIMITS, Limits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from capsule_protocol.envelope import Buffer, Frames


class Need(Enum):
    """What a reader answers when it has nothing complete."""

    DATA = "data"


NEED_DATA: Final = Need.DATA

_SIZE = struct.Struct(">Q")
_COUNT = struct.Struct(">I")
_TWO_FRAMES = struct.Struct(">QIQQ")
"""The prefix of a message without buffers, which nearly all are: its size, 2, and the sizes of header and body."""
_TABLE_OF_TWO = _TWO_FRAMES.size - _SIZE.size


def pack(frames: Sequence[Buffer], limits: Limits = DEFAULT_LIMITS) -> Frames:
    """The message as chunks to write one after the other: a prefix, and the frames uncopied.

    Raises LocalProtocolError `message_too_large` when the receiver would refuse it.
    """
    if len(frames) == 2:
        header, body = len(frames[0]), len(frames[1])
        if header + body <= limits.message_bytes:
            return [_TWO_FRAMES.pack(_TABLE_OF_TWO + header + body, 2, header, body), *frames]
    sizes = [len(frame) for frame in frames]
    total = sum(sizes)
    for name, actual in (("message_bytes", total), ("buffers", len(frames) - 2)):
        allowed: int = getattr(limits, name)
        if actual > allowed:
            raise LocalProtocolError("message_too_large", *_over(name, allowed, actual))
    table = _COUNT.pack(len(sizes)) + struct.pack(f">{len(sizes)}Q", *sizes)
    return [_SIZE.pack(len(table) + total) + table, *frames]


class FrameBuffer:
    """Collects bytes as they arrive and gives out whole messages; it waits for nothing and reads nothing itself.

    It never holds more than one message over the limit's size plus what one `feed` brought.
    """

    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        self._limits = limits
        self._chunk = b""  # what came last, if nothing was left of what had come before
        self._at = 0  # how much of it has been given out
        self._data = bytearray()  # else all that came
        self._pieces: list[bytes] = []  # what came behind it, while the message is known to be incomplete
        self._missing = 0
        self._skip = 0

    @property
    def incomplete(self) -> bool:
        """Whether a message has begun and not ended: at the end of the transport that means it was cut off."""
        return bool(self._data) or self._at < len(self._chunk) or self._skip > 0

    def feed(self, data: bytes) -> None:
        """Take what the transport brought. What belongs to a refused message is dropped at once."""
        if self._skip:
            dropped = min(self._skip, len(data))
            self._skip -= dropped
            data = data[dropped:]
        if self._data or self._at < len(self._chunk):
            self._gather()
            self._append(data)
        else:
            self._chunk, self._at = data, 0

    def next_message(self) -> list[bytes] | Literal[Need.DATA]:
        """The frames of the next message, or NEED_DATA.

        Raises RemoteProtocolError for a message that is over a limit or inconsistent; the next call goes on behind it.
        """
        if not self._data:
            chunk, at = self._chunk, self._at
            if at == len(chunk):
                return NEED_DATA
            if at + _TWO_FRAMES.size <= len(chunk):
                size, count, header, body = _TWO_FRAMES.unpack_from(chunk, at)
                begin = at + _TWO_FRAMES.size
                middle, end = begin + header, begin + header + body
                fits = count == 2 and size == _TABLE_OF_TWO + header + body and end <= len(chunk)
                if fits and header + body <= self._limits.message_bytes:
                    self._at = end
                    return [chunk[begin:middle], chunk[middle:end]]
            self._gather()
        return self._next_gathered()

    def _append(self, data: bytes) -> None:
        if len(data) < self._missing:  # to let the buffer grow by each piece would copy a large message again and again
            self._pieces.append(data)
            self._missing -= len(data)
            return
        if self._pieces:
            self._data = bytearray().join([self._data, *self._pieces, data])
            self._pieces.clear()
        else:
            self._data += data
        self._missing = 0

    def _gather(self) -> None:
        self._data += memoryview(self._chunk)[self._at :]
        self._chunk, self._at = b"", 0

    def _next_gathered(self) -> list[bytes] | Literal[Need.DATA]:
        data = self._data
        if self._missing or len(data) < _SIZE.size:
            return NEED_DATA
        (size,) = _SIZE.unpack_from(data)
        head = _COUNT.size + _SIZE.size * (self._limits.buffers + 2)
        if size > self._limits.message_bytes + head:
            self._drop(size)
            raise RemoteProtocolError("message_too_large", *_over("message_bytes", self._limits.message_bytes, size))
        if len(data) < _SIZE.size + size:
            self._missing = _SIZE.size + size - len(data)
            return NEED_DATA
        try:
            return self._cut(memoryview(data)[_SIZE.size : _SIZE.size + size])
        finally:
            self._drop(size)

    def _cut(self, message: memoryview) -> list[bytes]:
        """The frames of one whole message."""
        with message:
            count = _COUNT.unpack_from(message)[0] if len(message) >= _COUNT.size else -1
            if count - 2 > self._limits.buffers:
                raise RemoteProtocolError("message_too_large", *_over("buffers", self._limits.buffers, count - 2))
            start = _COUNT.size + _SIZE.size * count
            if count < 0 or start > len(message):
                raise RemoteProtocolError("invalid_message", "the message is shorter than its table of frames")
            sizes = struct.unpack_from(f">{count}Q", message, _COUNT.size)
            total = sum(sizes)
            if start + total != len(message):
                raise RemoteProtocolError("invalid_message", "the sizes of the frames do not add up to the message")
            if total > self._limits.message_bytes:
                raise RemoteProtocolError(
                    "message_too_large", *_over("message_bytes", self._limits.message_bytes, total)
                )
            frames = []
            for size in sizes:
                frames.append(bytes(message[start : start + size]))
                start += size
            return frames

    def _drop(self, size: int) -> None:
        end = _SIZE.size + size
        self._skip = max(0, end - len(self._data))
        del self._data[:end]


def _over(name: str, allowed: int, actual: int) -> tuple[str]:
    return (f"a message is over the limit {name}={allowed}: it has {actual}",)
