"""Servers for tests of `http`: one that answers as HTTP has it, one that sends whatever bytes a test wants."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import h11

from capsule.providers.http import provider
from tests.acceptance.providers.calls import ASKER, Caller, services

if TYPE_CHECKING:
    import ssl
    from pathlib import Path

    from capsule.broker.sdk import Asker

LOOPBACK = ["127.0.0.0/8"]
Raw: TypeAlias = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Seen:
    """A request as the server got it."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes = b""


@dataclass
class Reply:
    """What the server answers."""

    status: int = 200
    headers: Mapping[str, str] | Iterable[tuple[str, str]] = field(default_factory=dict)
    body: bytes = b""


@dataclass
class Server:
    """Where a server listens, and what it has seen."""

    port: int = 0
    connections: int = 0
    seen: list[Seen] = field(default_factory=list)
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    """A connection has ended."""

    def url(self, path: str = "/", host: str = "127.0.0.1", scheme: str = "http") -> str:
        return f"{scheme}://{host}:{self.port}{path}"

    def target(self, host: str = "127.0.0.1", **more: Any) -> dict[str, Any]:
        """An entry of a scope that allows this server."""
        return {"scheme": "http", "host": host, "port": self.port, **more}


@asynccontextmanager
async def serve_raw(
    talk: Raw, context: ssl.SSLContext | None = None, address: str = "127.0.0.1"
) -> AsyncIterator[Server]:
    """A server that does with each connection what `talk` does."""
    server = Server()
    tasks: set[asyncio.Task[Any]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        server.connections += 1
        try:
            await talk(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError, h11.RemoteProtocolError):
            pass  # the client has gone
        finally:
            tasks.discard(task)
            writer.close()
            with suppress(ConnectionError, OSError, asyncio.CancelledError):
                await writer.wait_closed()
            server.closed.set()

    listening = await asyncio.start_server(connected, address, 0, ssl=context)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listening.close()
        left = list(tasks)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await listening.wait_closed()


@asynccontextmanager
async def serve(
    answer: Callable[[Seen], Reply] = lambda _seen: Reply(),
    context: ssl.SSLContext | None = None,
    address: str = "127.0.0.1",
) -> AsyncIterator[Server]:
    """A server that answers each request by a function; it keeps connections open as long as the client does."""
    told: list[Server] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = h11.Connection(h11.SERVER)
        while True:
            seen = await _request(link, reader)
            if seen is None:
                return
            told[0].seen.append(seen)
            await _reply(link, writer, answer(seen), bare=seen.method == "HEAD")
            if link.our_state is not h11.DONE or link.their_state is not h11.DONE:
                return
            link.start_next_cycle()

    async with serve_raw(talk, context, address) as server:
        told.append(server)
        yield server


async def head(reader: asyncio.StreamReader) -> bytes:
    """The head of a request, for servers that write their answers by hand."""
    return await reader.readuntil(b"\r\n\r\n")


@asynccontextmanager
async def web(
    *targets: dict[str, Any],
    names: Callable[[str, int], Iterable[str]] | Mapping[str, list[str]] | None = None,
    secrets: Mapping[str, str] | None = None,
    ca_file: Path | None = None,
    asker: Asker = ASKER,
    **scope: Any,
) -> AsyncIterator[Caller]:
    """Calls of `http` under a grant of these targets, on loopback unless `private` says otherwise."""
    known = names if callable(names) else dict(names or {})

    def resolve(host: str, port: int) -> Iterable[str]:
        if callable(known):
            return known(host, port)
        if host not in known:
            raise OSError(f"there is no {host}")
        return known[host]

    made = provider(resolve=resolve, ca_file=ca_file)
    await made.start(services(**dict(secrets or {})))
    try:
        yield Caller(made, {"private": LOOPBACK, **scope, "allow": list(targets)}, asker)
    finally:
        await made.stop()


async def _request(link: h11.Connection, reader: asyncio.StreamReader) -> Seen | None:
    seen: Seen | None = None
    while True:
        event = link.next_event()
        if event is h11.NEED_DATA:
            link.receive_data(await reader.read(2**16))
        elif isinstance(event, h11.Request):
            headers = {name.decode(): value.decode() for name, value in event.headers.raw_items()}
            headers = {name.lower(): value for name, value in headers.items()}
            seen = Seen(event.method.decode(), event.target.decode(), headers)
        elif isinstance(event, h11.Data):
            assert seen is not None
            seen.body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            return seen
        else:
            return None


async def _reply(link: h11.Connection, writer: asyncio.StreamWriter, reply: Reply, *, bare: bool) -> None:
    given = reply.headers.items() if isinstance(reply.headers, Mapping) else reply.headers
    headers = [(name.lower(), value) for name, value in given]
    if "content-length" not in dict(headers):
        headers.append(("content-length", str(len(reply.body))))
    writer.write(link.send(h11.Response(status_code=reply.status, headers=headers)) or b"")
    if reply.body and not bare:
        writer.write(link.send(h11.Data(data=reply.body)) or b"")
    writer.write(link.send(h11.EndOfMessage()) or b"")
    await writer.drain()
