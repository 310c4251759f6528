"""What the tests of zygote, box and launch share: a zygote whose workers run given code, and waiting without sleeps."""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capsule.node.launch import Box, Zygote
from capsule.node.resources import box_directory

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

CHILDREN = str(Path(__file__).parent / "children")
WORKER = "box_worker:main"
LONG = 30.0  # no test waits this long unless it fails

SPARE = "capsule-spare"
WAIT = "import signal; signal.pause()"


class Forked:
    """A box, what its worker reports, and its end of a socket that the worker sees as `page`."""

    def __init__(
        self, box: Box, directory: str, out: asyncio.StreamReader, err: asyncio.StreamReader, page: int
    ) -> None:
        self.box = box
        self.directory = directory
        self.out = out
        self.err = err
        self.page = page

    async def report(self) -> Any:
        """The next value that the worker's code reported."""
        async with asyncio.timeout(LONG):
            line = await self.out.readline()
            assert line, (await self.err.read()).decode()
            return json.loads(line)

    async def end(self) -> None:
        """Close the box and wait until nothing of it is left."""
        self.box.close()
        async with asyncio.timeout(LONG):
            await self.box.gone()


@asynccontextmanager
async def running_zygote(path: Sequence[str] = (), **options: Any) -> AsyncIterator[Zygote]:
    """A zygote that is closed, and has died, when the block ends."""
    zygote = await Zygote.start(path=[CHILDREN, *path], worker=WORKER, **options)
    try:
        yield zygote
    finally:
        await close(zygote)


async def close(zygote: Zygote) -> None:
    zygote.close()
    async with asyncio.timeout(LONG):
        await zygote.died.wait()


@asynccontextmanager
async def forked(zygote: Zygote, code: str, parent: Path | None = None, **spec: Any) -> AsyncIterator[Forked]:
    """A worker that runs this code."""
    directory = str(box_directory(parent, zygote.pid))
    pipes = [os.pipe(), os.pipe(), os.pipe()]
    given = [pipes[0][1], pipes[1][1], pipes[2][0]]
    try:
        async with asyncio.timeout(LONG):
            box = await zygote.fork({"dir": directory, "code": code, **spec}, given)
    finally:
        for descriptor in given:
            os.close(descriptor)
    out, err = [await reader_of(pipe[0]) for pipe in pipes[:2]]
    child = Forked(box, directory, out[0], err[0], pipes[2][1])
    try:
        yield child
    finally:
        await child.end()
        for _, transport in (out, err):
            transport.close()
        os.close(pipes[2][1])
        await asyncio.sleep(0)  # transports close their descriptors in the next turn of the loop


async def reader_of(descriptor: int) -> tuple[asyncio.StreamReader, asyncio.ReadTransport]:
    """Read a pipe, which the transport closes."""
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb", buffering=0)
    )
    return reader, transport


async def told(zygote: Zygote, code: str, **spec: Any) -> Any:
    """What a new worker reports when it runs this code."""
    async with forked(zygote, code, **spec) as child:
        return await child.report()


class Watch:
    """Waits for the end of processes that are no children of this one."""

    def __init__(self, *pids: int) -> None:
        self._pidfds = []
        for pid in pids:
            with suppress(ProcessLookupError):
                self._pidfds.append(os.pidfd_open(pid))

    async def ended(self) -> None:
        """Wait until all of them have ended."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(LONG):
            for pidfd in self._pidfds:
                end = asyncio.Event()
                loop.add_reader(pidfd, end.set)
                try:
                    await end.wait()
                finally:
                    loop.remove_reader(pidfd)
                    os.close(pidfd)


def children_of(pid: int) -> set[int]:
    return {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}


def boxes_of(zygote: int) -> set[int]:
    """Its children but the box that it keeps ahead, which may be so new that it is still called as the zygote is."""
    return {pid for pid in children_of(zygote) if name_of(pid) not in {SPARE, name_of(zygote)}}


def name_of(pid: int) -> str:
    """What `ps` calls it; empty if it is gone."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


async def spare_of(zygote: Zygote) -> int:
    """The box that the zygote keeps ahead, as soon as it waits for its worker."""
    async with asyncio.timeout(LONG):
        while True:
            for pid in children_of(zygote.pid):
                if name_of(pid) == SPARE:
                    return pid
            await asyncio.sleep(0.001)


def open_descriptors(pid: int | str = "self") -> dict[int, str]:
    """What a process has open; the descriptor that lists them is left out."""
    found = {}
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            found[int(link.name)] = str(link.readlink())
    return found


def opened_since(before: dict[int, str]) -> dict[int, str]:
    """What this process has open and had not before. Of that, more may be closed by now: an earlier test's sockets, by
    ZeroMQ, which does it unannounced."""
    return dict(open_descriptors().items() - before.items())
