"""Unpacks bodies piece by piece: a small one that unpacks to gigabytes is seen before it has."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

from capsule_protocol.errors import CapabilityFailed

if TYPE_CHECKING:
    from collections.abc import Iterator

PIECE = 2**16
ACCEPTED = "gzip"


class Plain:
    """A body as it is."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The next bytes."""
        yield data

    def end(self) -> None:
        """Nothing follows."""


class Gunzip(Plain):
    """A body under gzip, of one member or several."""

    def __init__(self) -> None:
        self._member: zlib._Decompress | None = None
        self._over = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What the next bytes unpack to, in pieces, some of which may be empty. Raises CapabilityFailed."""
        while data and not self._over:
            if self._member is None or self._member.eof:
                # Behind the last member some servers leave padding, which browsers overlook, too.
                self._over = self._member is not None and not data.startswith(b"\x1f")
                self._member = zlib.decompressobj(zlib.MAX_WBITS | 16) if not self._over else self._member
                continue
            yield from self._unpack(data, self._member)
            data = self._member.unused_data

    def end(self) -> None:
        """Raise CapabilityFailed if the body is not whole."""
        if self._member is not None and not self._member.eof:
            raise CapabilityFailed("http_failed", "the answer ended in the middle of its compressed body")

    def _unpack(self, data: bytes, member: zlib._Decompress) -> Iterator[bytes]:
        more = True
        while more:
            try:
                piece = member.decompress(data, PIECE)
            except zlib.error as error:
                raise CapabilityFailed("http_failed", "the compressed body of the answer is damaged") from error
            yield piece
            data = member.unconsumed_tail
            more = not member.eof and (bool(data) or len(piece) == PIECE)


def decoder(encoding: str) -> Plain | None:
    """What undoes a Content-Encoding, or None for one that is not known."""
    if encoding in ("", "identity", "none"):
        return Plain()
    return Gunzip() if encoding in ("gzip", "x-gzip") else None
