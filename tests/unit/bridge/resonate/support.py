"""A Resonate server that is not ours, and a line to it that can be disturbed."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Literal

import aiohttp
import pytest

from capsule_bridge.resonate import ResonateStore

INSTALLED = Path(__file__).parents[4] / ".venv-resonate"
KINDS = ["python", "node"]
"""Two servers in memory that Resonate publishes, each written by itself."""
PATIENCE = 30.0

Manner = Literal["pass", "cut before", "cut after", "wait"]


def command(kind: str) -> list[str | Path]:
    """Starts the server of this kind; the test is skipped if it is not installed."""
    here = Path(__file__).parent
    module = INSTALLED / "node_modules/@resonatehq/sdk/dist/src/index.js"
    node = shutil.which("node")
    if kind == "node" and node is not None and module.exists():
        return [node, here / "server.mjs", module]
    if kind == "python" and importlib.util.find_spec("resonate") is not None:
        return [sys.executable, here / "server.py"]
    if kind == "python" and (INSTALLED / "bin/python").exists():
        return [INSTALLED / "bin/python", here / "server.py"]
    pytest.skip(f"there is no {kind} server of Resonate: `make test` installs it where it finds Python 3.12 and Node")


class Server:
    """Resonate's server in a process of its own."""

    def __init__(self, kind: str, port: int) -> None:
        self.kind = kind
        self.url = f"http://127.0.0.1:{port}"
        self._port = port

    def clock(self, now: int) -> None:
        """Set its time."""
        self._post("/clock", str(now))

    def forget(self) -> None:
        """It loses all it has."""
        self._post("/forget", "")

    def call(self, kind: str, **data: Any) -> dict[str, Any]:
        """As another program calls it: the status, and the promise if there is one (a refusal is a sentence)."""
        head = {"corrId": "other", "version": "2026-04-01"}
        answer = json.loads(self._post("/", json.dumps({"kind": kind, "head": head, "data": data})))
        found = answer["data"].get("promise") if isinstance(answer["data"], dict) else None
        return {"status": answer["head"]["status"], **(found or {"state": None})}

    def _post(self, path: str, body: str) -> bytes:
        # A connection for each: one that rested may have been closed.
        with closing(HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE)) as http:
            http.request("POST", path, body)
            response = http.getresponse()
            assert response.status == 200
            return response.read()


@contextmanager
def running(kind: str) -> Iterator[Server]:
    """A server that runs, empty, at time 0."""
    with subprocess.Popen(command(kind), stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            yield Server(kind, int(process.stdout.readline()))
        finally:
            process.kill()


class Timed(ResonateStore):
    """A store whose server has the time that is the argument of each call: the contract's times are small numbers."""

    def __init__(self, server: Server, path: Path) -> None:
        super().__init__(server.url, path, "process")
        self._clock = server.clock
        self._time = 0

    def _tell(self, now: int) -> None:
        if now != self._time:
            self._clock(now)
            self._time = now

    async def create(self, *arguments: Any, now: int) -> Any:
        self._tell(now)
        return await super().create(*arguments, now=now)

    async def start(self, *arguments: Any, now: int, **options: Any) -> Any:
        self._tell(now)
        return await super().start(*arguments, now=now, **options)

    async def settle(self, *arguments: Any, now: int) -> Any:
        self._tell(now)
        return await super().settle(*arguments, now=now)

    async def get(self, *arguments: Any, now: int) -> Any:
        self._tell(now)
        return await super().get(*arguments, now=now)

    async def expire(self, *, now: int, **options: Any) -> Any:
        self._tell(now)
        return await super().expire(now=now, **options)


class Line:
    """A line to a server. `manners` are those of the next requests, then all pass; `answer` stands for every answer,
    `echo` too, with the correlation of its request.

    A request that waits does so until the line is `open`.
    """

    def __init__(self, server: Server) -> None:
        self.url = ""
        self.manners: list[Manner] = []
        self.answer: bytes | None = None
        self.echo: dict[str, Any] | None = None
        self.asked: list[dict[str, Any]] = []
        self.heads: list[bytes] = []
        self.waits, self.open = asyncio.Event(), asyncio.Event()
        self._server = server

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        try:
            async with aiohttp.ClientSession() as http:
                while body := await self._request(reader):
                    if not await self._one(body, http, writer):
                        return
        finally:
            writer.close()

    async def _one(self, body: bytes, http: aiohttp.ClientSession, writer: asyncio.StreamWriter) -> bool:
        self.asked.append(json.loads(body))
        manner = self.manners.pop(0) if self.manners else "pass"
        if manner == "wait":
            self.waits.set()
            await self.open.wait()
        if manner == "cut before":
            return False
        answer = self.answer
        if self.echo is not None:
            head = self.echo.get("head", {}) | {"corrId": self.asked[-1]["head"]["corrId"]}
            answer = json.dumps(self.echo | ({"head": head} if "head" in self.echo else {})).encode()
        if answer is None:
            async with http.post(self._server.url, data=body) as response:
                answer = await response.read()
        if manner == "cut after":
            return False
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(answer), answer))
        await writer.drain()
        return True

    async def _request(self, reader: asyncio.StreamReader) -> bytes:
        """The body of the next request; nothing at the end."""
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return b""
        self.heads.append(head)
        lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        return await reader.readexactly(int(lengths[0].partition(b":")[2]))


@asynccontextmanager
async def line_to(server: Server) -> AsyncIterator[Line]:
    """A line that is open."""
    line = Line(server)
    tasks: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.ensure_future(line.serve(reader, writer)))

    listener = await asyncio.start_server(connected, "127.0.0.1", 0)
    line.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    try:
        yield line
    finally:
        listener.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
