"""Marks in the output pipes: 32 bytes that say whose output follows and how pipes and messages are ordered.

A mark is the session's secret token (16 bytes), the serial of the execution that owns what follows (u64), the number of
a fence (u32) and flags (u32), little-endian. User code does not know the token, so what it writes is never taken for a
mark; a mark may be cut anywhere by the reads of the node.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

TOKEN_SIZE = 16
TOKEN_START = b"\xff"
"""What every token begins with: no text in UTF-8 holds this byte, so none is held back as the beginning of a mark."""
MARK_SIZE = 32

OWNER = 0
"""Flags of a mark that only names an owner."""
FENCE = 1
"""Set: this mark is in both pipes; all before it in either precedes all behind it in either."""
MESSAGE = 2
"""Set with FENCE: a message with this fence number follows, and what is behind the mark waits for it."""
FLUSHED = 4
"""Set alone: the held text of this stream is in the pipe, up to here; `fence` is the number of the flush."""

_MARK = struct.Struct("<16sQII")
_FIELDS = struct.Struct("<QII")


class Mark(NamedTuple):
    """One mark, its token taken off."""

    owner: int
    fence: int
    flags: int


def pack(token: bytes, owner: int, fence: int = 0, flags: int = OWNER) -> bytes:
    """The 32 bytes of a mark."""
    return _MARK.pack(token, owner, fence, flags)


class Splitter:
    """Splits what is read from one pipe into plain bytes and marks, however the reads cut it."""

    __slots__ = ("_first", "_held", "_token")

    def __init__(self, token: bytes) -> None:
        if len(token) != TOKEN_SIZE:
            raise ValueError(f"a token has {TOKEN_SIZE} bytes, not {len(token)}")
        self._token = token
        self._first = token[:1]
        self._held = b""

    def feed(self, data: bytes) -> list[bytes | Mark]:
        """Plain bytes and marks in order; at most 31 bytes that may begin a mark are held back."""
        if self._held:
            data = self._held + data
        parts: list[bytes | Mark] = []
        start = 0
        end = len(data)
        while (found := data.find(self._token, start)) >= 0 and found + MARK_SIZE <= end:
            if found > start:
                parts.append(data[start:found])
            parts.append(Mark._make(_FIELDS.unpack_from(data, found + TOKEN_SIZE)))
            start = found + MARK_SIZE
        keep = found if found >= 0 else self._beginning(data, start, end)
        if keep > start:
            parts.append(data[start:keep])  # the same object when it is the whole chunk
        self._held = data[keep:]
        return parts

    @property
    def held(self) -> bytes:
        """What is held back."""
        return self._held

    def rest(self) -> bytes:
        """What is held back, given up: at the end of the pipe it is the beginning of a mark or plain bytes."""
        held, self._held = self._held, b""
        return held

    def _beginning(self, data: bytes, start: int, end: int) -> int:
        """Where a token begins that the end of the data cuts off, or the end."""
        at = data.find(self._first, max(start, end - TOKEN_SIZE + 1))
        while at >= 0:
            if self._token.startswith(data[at:]):
                return at
            at = data.find(self._first, at + 1)
        return end
