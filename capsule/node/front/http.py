"""A small HTTP server for monitoring: one request a connection, and never in the way of the node's own work."""

from __future__ import annotations

import asyncio
import errno
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import h11

from capsule_protocol.errors import NodeError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

logger = logging.getLogger("capsule.http")

HEAD_BYTES = 16_384
"""What a request line and its headers may have."""
CONNECTIONS = 64
"""Connections at once; one more is closed unread."""
PATIENCE = 10.0
"""Seconds for one request and its answer."""
PIECE = 16_384
DISCARDED = 2**20
"""Bytes behind a request that are read, so that its sender gets the answer before the end."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request gets."""

    status: int
    body: bytes
    content_type: str = "text/plain; charset=utf-8"


class HttpServer:
    """Serves GET and HEAD of a few paths, until `close`."""

    def __init__(self, routes: Mapping[str, Callable[[], Awaitable[Answer]]]) -> None:
        self._routes = routes
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()

    async def start(self, address: str) -> str:
        """Listen at HOST:PORT, and tell where (port 0 becomes another). Raises NodeError."""
        host, _, port = address.rpartition(":")
        try:
            self._server = await asyncio.start_server(self._connected, host.strip("[]"), int(port))
        except OSError as error:
            code = "address_in_use" if error.errno == errno.EADDRINUSE else "address_refused"
            raise NodeError(code, f"cannot serve http at {address}: {error.strerror or error}") from error
        return f"http://{host}:{self._server.sockets[0].getsockname()[1]}"

    async def close(self) -> None:
        """Hang up. Idempotent."""
        if self._server is not None:
            self._server.close()
        for task in self._open:
            task.cancel()
        if self._open:
            await asyncio.wait(self._open)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or len(self._open) >= CONNECTIONS:
            writer.transport.abort()
            return
        self._open.add(task)
        try:
            async with asyncio.timeout(PATIENCE):
                await self._serve(reader, writer)
        except (OSError, TimeoutError) as error:
            logger.debug("a client of the http port left, or was too slow: %s", error)
        except Exception:  # a mistake of ours costs this connection only
            logger.exception("an http request could not be answered")
        finally:
            self._open.discard(task)
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES)
        try:
            request = await _receive(connection, reader)
            if request is None:
                return
            answer = await self._answer(request)
        except h11.RemoteProtocolError as error:
            request, answer = None, Answer(error.error_status_hint, b"this is not an HTTP request\n")
        writer.write(_encode(connection, answer, bodiless=request is not None and request.method == b"HEAD"))
        writer.write_eof()
        await writer.drain()
        # What it still sends is read and dropped: to close on it would take the answer away from it.
        left = DISCARDED
        while left > 0 and (data := await reader.read(PIECE)):
            left -= len(data)

    async def _answer(self, request: h11.Request) -> Answer:
        if request.method not in {b"GET", b"HEAD"}:
            return Answer(405, b"GET and HEAD only\n")
        route = self._routes.get(request.target.split(b"?")[0].decode("ascii", "replace"))
        if route is None:
            return Answer(404, f"there are: {' '.join(self._routes)}\n".encode())
        return await route()


async def _receive(connection: h11.Connection, reader: asyncio.StreamReader) -> h11.Request | None:
    """The head of the request; None: it hung up. Raises h11.RemoteProtocolError."""
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Request):
            return event
        if event is not h11.NEED_DATA:
            return None
        connection.receive_data(await reader.read(PIECE))


def _encode(connection: h11.Connection, answer: Answer, *, bodiless: bool) -> bytes:
    headers = [
        ("Content-Type", answer.content_type),
        ("Content-Length", str(len(answer.body))),
        ("Cache-Control", "no-store"),
        ("Connection", "close"),
    ]
    if answer.status == 405:
        headers.append(("Allow", "GET, HEAD"))
    head = connection.send(h11.Response(status_code=answer.status, headers=headers)) or b""
    return head if bodiless else head + answer.body
