"""What is urgent overtakes bulk data over `tcp://`, on a network that carries only as much as the test lets it."""

from __future__ import annotations

import asyncio
import re
import socket
import urllib.request
from typing import TYPE_CHECKING, Self

import pytest

from capsule import AsyncClient
from tests.acceptance.auth.support import LONG, Guarded

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

    from capsule import AsyncSession

pytestmark = pytest.mark.anyio

MIB = 2**20
FILES = 8
SIZE = 16 * MIB
BEHIND = 24 * MIB
"""Bytes that one end has sent and the network has not carried, when something urgent is said."""
BUDGET = 8 * MIB
"""Bytes that the network carries then."""
SMALL = 65_536


class Way:
    """One direction of a connection: carries bytes as long as its budget lasts."""

    def __init__(self) -> None:
        self.carried = 0
        self._budget: float = float("inf")
        self._changed = asyncio.Event()

    def allow(self, size: float) -> None:
        """Carry so many bytes from now on."""
        self._budget = size
        self._changed.set()

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(SMALL):
            while self._budget < len(data):
                self._changed.clear()
                await self._changed.wait()
            self._budget -= len(data)
            self.carried += len(data)
            writer.write(data)
            await writer.drain()


class Tollgate:
    """Stands between one client and a node, and holds as little as may be."""

    def __init__(self, target: str) -> None:
        self.up, self.down = Way(), Way()
        self.address = ""
        host, _, port = target.removeprefix("tcp://").rpartition(":")
        self._target = host, int(port)
        self._tasks: list[asyncio.Task[None]] = []
        self._writers: list[asyncio.StreamWriter] = []
        self._server: asyncio.Server

    async def __aenter__(self) -> Self:
        listening = _small_socket()
        listening.bind(("127.0.0.1", 0))
        self._server = await asyncio.start_server(self._connected, sock=listening, limit=SMALL)
        self.address = f"tcp://127.0.0.1:{listening.getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = _small_socket()
        there.settimeout(0)
        await asyncio.get_running_loop().sock_connect(there, self._target)
        from_node, to_node = await asyncio.open_connection(sock=there, limit=SMALL)
        self._writers += [writer, to_node]
        self._tasks += [
            asyncio.ensure_future(self.up.carry(reader, to_node)),
            asyncio.ensure_future(self.down.carry(from_node, writer)),
        ]


def _small_socket() -> socket.socket:
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL)
    return made


class Progress:
    """How far several transfers are."""

    def __init__(self) -> None:
        self.done = [0] * FILES
        self._moved = asyncio.Event()

    def of(self, number: int) -> Callable[[int, int | None], None]:
        def moved(done: int, _total: int | None) -> None:
            self.done[number] = done
            self._moved.set()

        return moved

    async def until(self, is_enough: Callable[[list[int]], bool]) -> None:
        while not is_enough(self.done):
            self._moved.clear()
            await self._moved.wait()


@pytest.fixture
def watched(folder: Path) -> Iterator[Guarded]:
    """A node that tells how much it has sent."""
    with Guarded(folder, 'http = "127.0.0.1:0"\n') as node:
        yield node


async def check_overtaking(session: AsyncSession, way: Way, has_sent: Callable[[], Awaitable[bool]]) -> None:
    """With all that on its way, an interrupt takes effect, and is told, before most of it has been carried."""
    running = session.submit("while True: pass")
    while running.state != "running":
        await asyncio.sleep(0)
    way.allow(0)
    while not await has_sent():
        await asyncio.sleep(0)
    interrupting = asyncio.ensure_future(session.interrupt())
    way.allow(BUDGET)
    assert (await running.result()).verdict == "interrupted"
    await interrupting


async def test_an_interrupt_overtakes_uploads(node: Guarded) -> None:
    progress = Progress()
    async with (
        asyncio.timeout(2 * LONG),
        Tollgate(node.tcp) as gate,
        AsyncClient(gate.address, key=node.new("uploads")) as client,
        client.session() as session,
        client.session() as files,
        asyncio.TaskGroup() as group,
    ):
        content = bytes(SIZE)
        for number in range(FILES):
            group.create_task(files.upload(content, f"file{number}", progress=progress.of(number)))
        await progress.until(all)

        async def has_sent() -> bool:
            await progress.until(lambda done: sum(done) >= gate.up.carried + BEHIND)
            return True

        await check_overtaking(session, gate.up, has_sent)
        assert sum(progress.done) < FILES * SIZE
        gate.up.allow(float("inf"))


async def test_a_verdict_overtakes_downloads(watched: Guarded) -> None:
    url = watched.next_line("metrics at").split()[-1]
    progress = Progress()

    def sent() -> int:
        with urllib.request.urlopen(url, timeout=LONG) as answer:
            found = re.search(r"^capsule_sent_bytes_total (\S+)", answer.read().decode(), re.MULTILINE)
        assert found is not None
        return int(float(found[1]))

    async with (
        asyncio.timeout(2 * LONG),
        Tollgate(watched.tcp) as gate,
        AsyncClient(gate.address, key=watched.new("downloads")) as client,
        client.session() as session,
        client.session() as files,
        asyncio.TaskGroup() as group,
    ):
        await files.run(f"for n in range({FILES}): open(f'file{{n}}', 'wb').write(bytes({SIZE}))")
        for number in range(FILES):
            group.create_task(files.download(f"file{number}", progress=progress.of(number)))
        await progress.until(all)

        async def has_sent() -> bool:
            return await asyncio.to_thread(sent) >= gate.down.carried + BEHIND

        await check_overtaking(session, gate.down, has_sent)
        assert sum(progress.done) < FILES * SIZE
        gate.down.allow(float("inf"))
