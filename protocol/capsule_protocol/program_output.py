"""How the two outputs of a program travel as one body: `shell.run` answers with frames, in the order of arrival.

    frame = stream (1 byte: 1 stdout, 2 stderr) · size (4 bytes, big-endian, 1 to MAX_FRAME_BYTES) · so many bytes

A body ends after a whole frame. Where frames begin says nothing of where the program's writes began.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from capsule_protocol.errors import RemoteProtocolError

if TYPE_CHECKING:
    from collections.abc import Iterator

STDOUT = 1
STDERR = 2
HEADER = struct.Struct(">BI")
MAX_FRAME_BYTES = 2**20 - HEADER.size
"""Of the content of one frame: with its header it is as large as a chunk of a body may be."""


class Frames:
    """Takes a body apart, whatever the pieces are that it comes in."""

    def __init__(self) -> None:
        self._waiting = bytearray()

    def feed(self, data: bytes | memoryview) -> Iterator[tuple[int, bytes]]:
        """The frames that are whole now: stream and content. Raises RemoteProtocolError for what is no frame."""
        self._waiting += data
        start = 0
        try:
            while len(self._waiting) - start >= HEADER.size:
                stream, size = HEADER.unpack_from(self._waiting, start)
                if stream not in {STDOUT, STDERR} or not 0 < size <= MAX_FRAME_BYTES:
                    raise RemoteProtocolError("invalid_message", "the output of a program is not in frames")
                end = start + HEADER.size + size
                if len(self._waiting) < end:
                    break
                content = bytes(memoryview(self._waiting)[start + HEADER.size : end])
                start = end
                yield stream, content
        finally:
            del self._waiting[:start]

    def end(self) -> None:
        """The body is over. Raises RemoteProtocolError if that is in the middle of a frame."""
        if self._waiting:
            raise RemoteProtocolError("invalid_message", "the output of a program ended in the middle of a frame")


def split(body: bytes) -> tuple[bytes, bytes]:
    """What a program has written to stdout and to stderr, of a body that is there as a whole."""
    frames = Frames()
    outputs = {STDOUT: bytearray(), STDERR: bytearray()}
    for stream, content in frames.feed(body):
        outputs[stream] += content
    frames.end()
    return bytes(outputs[STDOUT]), bytes(outputs[STDERR])
