"""Bodies on their way: from the code to a server, and from a server to the code."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, NamedTuple

from capsule.providers.http.decoding import decoder
from capsule_protocol.errors import CapabilityFailed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    import httpx

    from capsule.providers.http.masks import Mask

KEPT_BYTES = 2**16
"""A request's body up to this size has its length told, and can be sent again after a redirect."""
GATHERED_BYTES = 2**18
_TURN = 0.001


class Relayed(NamedTuple):
    """Sizes of a body: as it was handed over, and as it came over the network."""

    size: int
    transferred: int


async def outgoing(body: AsyncIterator[bytes], most: int | None) -> bytes | AsyncIterator[bytes]:
    """The body of a request: whole if it is small, else as it comes. Raises CapabilityFailed."""
    begun = bytearray()
    parts = _bounded(body, most)
    async for part in parts:
        begun += part
        if len(begun) > KEPT_BYTES:
            return _chained(bytes(begun), parts)
    return bytes(begun)


async def relay(response: httpx.Response, mask: Mask, most: int | None, take: Taker) -> Relayed:
    """Hand the body of an answer over, unpacked and without secrets. Raises CapabilityFailed."""
    encoding = response.headers.get("content-encoding", "").strip().lower()
    unpacked = decoder(encoding)
    if unpacked is None and mask.active:
        raise CapabilityFailed("http_failed", f"the answer is packed with {encoding[:40]!r}, which was not asked for")
    told = response.headers.get("content-length", "")
    if most is not None and told.isdigit() and int(told) > most and response.request.method != "HEAD":
        raise _too_large(most)
    unpacked = unpacked or decoder("identity")
    assert unpacked is not None
    size = transferred = 0
    turn = Turn()
    async for raw in response.aiter_raw():
        transferred += len(raw)
        for piece in unpacked.feed(raw):
            size += len(piece)
            if most is not None and max(size, transferred) > most:
                raise _too_large(most)
            await take.add(mask.feed(piece))
            await turn.give()
    unpacked.end()
    await take.add(mask.end())
    await take.end()
    return Relayed(size, transferred)


class Taker:
    """Hands bytes over to the code: gathered into large chunks, or each as it comes."""

    def __init__(self, send: Callable[[bytes], Awaitable[None]], *, gather: bool) -> None:
        self._send = send
        self._most = GATHERED_BYTES if gather else 1
        self._gathered = bytearray()

    async def add(self, piece: bytes) -> None:
        """Take more."""
        self._gathered += piece
        if len(self._gathered) >= self._most:
            await self.end()

    async def end(self) -> None:
        """Hand over what has gathered."""
        if self._gathered:
            chunk, self._gathered = bytes(self._gathered), bytearray()
            await self._send(chunk)


class Turn:
    """Lets the event loop turn to others, when it was held for a while by work that waits for nothing."""

    def __init__(self) -> None:
        self._since = time.perf_counter()

    async def give(self) -> None:
        """Do so if it is time."""
        if time.perf_counter() - self._since > _TURN:
            await asyncio.sleep(0)
            self._since = time.perf_counter()


async def _bounded(body: AsyncIterator[bytes], most: int | None) -> AsyncIterator[bytes]:
    size = 0
    async for part in body:
        size += len(part)
        if most is not None and size > most:
            raise CapabilityFailed("capability_too_large", f"the body of the request is larger than {most} bytes")
        yield part


async def _chained(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for part in rest:
        yield part


def _too_large(most: int) -> CapabilityFailed:
    return CapabilityFailed("capability_too_large", f"the body of the answer is larger than {most} bytes")
