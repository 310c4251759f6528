"""A real `capsule serve`, and a proxy before it that can cut connections."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import subprocess
import sys
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

from capsule import AsyncClient
from capsule_protocol.codec import decode, encode
from capsule_protocol.examples import EXAMPLES
from capsule_protocol.framing import NEED_DATA, FrameBuffer, pack

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from capsule_protocol.envelope import Buffer, Envelope

LONG = 60.0
UNOBEYED = [(title, envelope) for title, envelope in EXAMPLES if envelope.type not in {"drain", "kill"}]
"""Messages of all kinds but those that the user may well send, and that would end the node or a session."""
CAPSULE = Path(sys.executable).with_name("capsule")


class Served:
    """A node in a process of its own, which listens in `directory`; `under` is a command that starts it.

    Its sessions end with it, unless they are to `linger` so many seconds.
    """

    def __init__(
        self, directory: Path, config: str = "", *flags: str, under: Sequence[str] = (), linger: float = 0.0
    ) -> None:
        self.directory = directory
        self.address = f"ipc://{directory}/node.sock"
        file = directory.parent / f"{directory.name}.toml"
        file.write_text(config, encoding="utf-8")
        self.log = directory.parent / f"{directory.name}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*under, str(CAPSULE), "serve", "--directory", str(directory), "--config", str(file), *flags],
                stdout=subprocess.PIPE,
                stderr=log,
                env={"CAPSULE_SERVE__LINGER": str(linger), **os.environ},
            )
        assert self.process.stdout is not None
        self.said = [self.process.stdout.readline().decode() for _ in range(2)]

    def client(self) -> AsyncClient:
        return AsyncClient(self.address)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(LONG)

    def close(self) -> None:
        with suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class RawClient:
    """A connection on which a test says what it likes."""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(0)
        self._socket.connect(address.removeprefix("ipc://"))
        self._incoming = FrameBuffer()

    async def send_frames(self, frames: Sequence[Buffer]) -> None:
        await self.send_bytes(b"".join(pack(frames)))

    async def send(self, envelope: Envelope) -> None:
        await self.send_frames(encode(envelope))

    async def send_bytes(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self._socket, data)

    async def frames(self) -> list[bytes]:
        async with asyncio.timeout(LONG):
            while (frames := self._incoming.next_message()) is NEED_DATA:
                data = await asyncio.get_running_loop().sock_recv(self._socket, 65_536)
                if not data:
                    raise EOFError
                self._incoming.feed(data)
        return frames

    async def receive(self) -> Envelope:
        return decode(await self.frames())

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Proxy:
    """Passes bytes on between clients and a node. `cut` ends every connection; while `shut`, new ones end at once.

    With `after`, each connection ends when this many bytes have gone to its client, with `before`, to its node: in the
    midst of a message.
    """

    def __init__(self, directory: Path, target: str) -> None:
        self.path = directory / "proxy.sock"
        self.address = f"ipc://{self.path}"
        self.shut = False
        self.after: int | None = None
        self.before: int | None = None
        self.connections = 0
        self._target = target.removeprefix("ipc://")
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server

    def cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def __aenter__(self) -> Self:
        await self._listen()
        return self

    async def _listen(self) -> None:
        self._server = await asyncio.start_unix_server(self._connected, self.path)

    async def _reach(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_unix_connection(self._target)

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.cut()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.shut:
            writer.transport.abort()
            return
        self.connections += 1
        there, there_writer = await self._reach()
        both = {writer, there_writer}
        self._writers |= both
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_pass(reader, there_writer, both, self.before))
                group.create_task(_pass(there, writer, both, self.after))
        finally:
            for one in both:
                one.transport.abort()
            self._writers -= both


class TcpProxy(Proxy):
    """The same for a node at a `tcp://` address."""

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.address = f"tcp://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _reach(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        host, _, port = self._target.removeprefix("tcp://").rpartition(":")
        return await asyncio.open_connection(host, int(port))


async def _pass(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, both: set[asyncio.StreamWriter], left: int | None
) -> None:
    with suppress(OSError):  # cut
        while left != 0 and (data := await reader.read(65_536)):
            if left is not None:
                data = data[:left]
                left -= len(data)
            writer.write(data)
            await writer.drain()
    for one in both:
        one.transport.abort()


@asynccontextmanager
async def through_proxy(served: Served, directory: Path) -> AsyncIterator[tuple[Proxy, AsyncClient]]:
    async with Proxy(directory, served.address) as proxy, AsyncClient(proxy.address) as client:
        yield proxy, client


def garbage(chance: random.Random) -> list[bytes]:
    """Frames that are nothing, nearly a message, or one that is not due."""
    kind = chance.randrange(4)
    if kind == 0:
        return [chance.randbytes(chance.randrange(200)) for _ in range(chance.randrange(1, 5))]
    _, envelope = chance.choice(UNOBEYED)
    frames = [bytes(frame) for frame in encode(envelope)]
    if kind == 1:
        at = chance.randrange(len(frames))
        frames[at] = frames[at][: chance.randrange(len(frames[at]) + 1)]
    elif kind == 2:
        at = chance.randrange(len(frames))
        cut = bytearray(frames[at] or b"x")
        cut[chance.randrange(len(cut))] = chance.randrange(256)
        frames[at] = bytes(cut)
    return frames


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
