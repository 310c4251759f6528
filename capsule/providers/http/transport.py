"""One request over one connection of its own, to an address that was checked."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any

import anyio
import httpcore
import httpx

from capsule.providers.http.tls import TlsStream

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Sequence

    from capsule.providers.http.addresses import Address

_READ_BYTES = 2**16
# While the head has not come: what comes at once is parsed at once, and each line takes microseconds.
_HEAD_READ_BYTES = 2**12
HEAD_LINES = 256
_HEAD_END = re.compile(rb"\n\r?\n")


class Bounds:
    """How long a connection may take to be made, and how much may come before the head of an answer is whole.

    All that comes before is counted, in bytes and in lines: endless headers, and interim answers (1xx) without end.
    """

    def __init__(self, connect_time: float, read_time: float, header_bytes: int) -> None:
        self.header_bytes = header_bytes
        self.read_time = read_time
        self._until = time.monotonic() + connect_time
        self._head_left: int | None = header_bytes
        self._lines = 0
        self._last = b""

    def time_to_connect(self) -> float:
        """What is left of it, in seconds."""
        return max(0.001, self._until - time.monotonic())

    def head_is_here(self) -> None:
        """What comes from now on is the body."""
        self._head_left = None

    def may_read(self) -> int:
        """How many bytes may be read now. Raises httpcore.RemoteProtocolError."""
        if self._head_left == 0:
            raise httpcore.RemoteProtocolError(f"the headers of the answer are larger than {self.header_bytes} bytes")
        return _READ_BYTES if self._head_left is None else min(self._head_left, _HEAD_READ_BYTES)

    def count(self, data: bytes) -> None:
        """Bytes have come. Raises httpcore.RemoteProtocolError."""
        if self._head_left is None:
            return
        self._head_left -= len(data)
        seen = self._last + data
        end = _HEAD_END.search(seen)  # what follows may be the body already
        self._lines += seen.count(b"\n", len(self._last), end.end() if end else len(seen))
        self._last = seen[-2:]
        if self._lines > HEAD_LINES:
            raise httpcore.RemoteProtocolError(f"the answer has more than {HEAD_LINES} headers")


class Stream(httpcore.AsyncNetworkStream):
    """A connection whose reads are bounded."""

    def __init__(self, inner: httpcore.AsyncNetworkStream, bounds: Bounds) -> None:
        self._inner = inner
        self._bounds = bounds

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Some bytes; none at the end."""
        data = await self._inner.read(min(max_bytes, self._bounds.may_read()), timeout)
        self._bounds.count(data)
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send them all."""
        await self._inner.write(buffer, timeout)

    async def aclose(self) -> None:
        """Let go of it."""
        await self._inner.aclose()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        """The same connection under TLS, for the name that the URL has."""
        wait = min(timeout or self._bounds.time_to_connect(), self._bounds.time_to_connect())
        secured = TlsStream(self._inner, ssl_context, server_hostname)
        await secured.shake_hands(wait)
        return Stream(secured, self._bounds)

    def get_extra_info(self, info: str) -> Any:
        """What the connection knows of itself."""
        return self._inner.get_extra_info(info)


class Pinned(httpcore.AsyncNetworkBackend):
    """Connects to addresses that were checked, whatever the name has become since."""

    def __init__(self, addresses: Sequence[Address], bounds: Bounds) -> None:
        self._addresses = addresses
        self._bounds = bounds
        self._inner = httpcore.AnyIOBackend()
        self._made: httpcore.AsyncNetworkStream | None = None

    async def connect_tcp(
        self,
        host: str,  # noqa: ARG002 (the name is what must not be looked up again)
        port: int,
        timeout: float | None = None,  # noqa: ARG002 (`bounds` has it)
        local_address: str | None = None,
        socket_options: Any = None,
    ) -> httpcore.AsyncNetworkStream:
        """Try one address after another. Raises what the last one raised."""
        for left, address in zip(range(len(self._addresses), 0, -1), self._addresses, strict=True):
            wait = self._bounds.time_to_connect() / left
            try:
                self._made = await self._inner.connect_tcp(str(address), port, wait, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                if left == 1:
                    raise
            else:
                return Stream(self._made, self._bounds)
        raise httpcore.ConnectError("there is no address")

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,  # noqa: ARG002 (nothing is connected)
        socket_options: Any = None,  # noqa: ARG002 (as above)
    ) -> httpcore.AsyncNetworkStream:
        """Never."""
        raise httpcore.UnsupportedProtocol(f"no request goes to the socket {path}")

    async def aclose(self) -> None:
        """Close what was connected, also where a cancelled handshake has left it. Idempotent."""
        if self._made is not None:
            made, self._made = self._made, None
            await made.aclose()


class Transport(httpx.AsyncBaseTransport):
    """httpx's transport over one such connection: no pool, no proxy, no second try, nothing kept.

    A connection is not used again: what a server sends behind its answer could be taken for the answer to the next.
    """

    def __init__(self, addresses: Sequence[Address], bounds: Bounds, context: ssl.SSLContext | None) -> None:
        self._bounds = bounds
        self._backend = Pinned(addresses, bounds)
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=context, max_connections=1, max_keepalive_connections=0, network_backend=self._backend
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send it and wait for the head of the answer. Raises httpcore's exceptions."""
        url = request.url
        wait = self._bounds.read_time
        answer = await self._pool.handle_async_request(
            httpcore.Request(
                method=request.method,
                url=httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
                headers=request.headers.raw,
                content=request.stream,
                extensions={"timeout": {"connect": self._bounds.time_to_connect(), "read": wait, "write": wait}},
            )
        )
        self._bounds.head_is_here()
        return httpx.Response(
            answer.status,
            headers=answer.headers,
            stream=_Body(answer),
            extensions=answer.extensions,
            request=request,
        )

    async def aclose(self) -> None:
        """Close the connection, whatever its state; not to be cancelled."""
        with anyio.CancelScope(shield=True):
            try:
                await self._pool.aclose()
            finally:
                await self._backend.aclose()


class _Body(httpx.AsyncByteStream):
    def __init__(self, answer: httpcore.Response) -> None:
        self._answer = answer

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for part in self._answer.aiter_stream():
            yield part

    async def aclose(self) -> None:
        await self._answer.aclose()
