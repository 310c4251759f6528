"""The node reads real pipes: nothing is lost, reading can stop, and the page's text comes last."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from capsule.node.capture import HELD_BYTES, Capture
from capsule.node.merge import Merge
from capsule_protocol import page as shared
from capsule_protocol.errors import RemoteProtocolError
from capsule_protocol.marks import FENCE, FLUSHED, pack

pytestmark = pytest.mark.anyio

TOKEN = b"T" * 16
LONG = 30.0


class Plant:
    """Two pipes, a page, a merge and a capture; the test is the worker."""

    def __init__(self) -> None:
        descriptor = shared.create()
        self.page = shared.Page(descriptor)
        os.close(descriptor)
        self.got: list[tuple[int, int, bytes]] = []
        self.violations: list[RemoteProtocolError] = []
        self.changed = asyncio.Event()
        self.merge = Merge(TOKEN, self._on_bytes, lambda _message: None)
        self.merge.newest = 5
        pipes = [os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK) for _ in range(2)]
        self.writes = [write for _, write in pipes]
        loop = asyncio.get_running_loop()
        reads = (pipes[0][0], pipes[1][0])
        self.capture = Capture(loop, reads, self.page, self.merge, self._on_violation)

    def _on_bytes(self, owner: int, stream: int, data: bytes) -> None:
        self.got.append((owner, stream, data))
        self.changed.set()

    def _on_violation(self, error: RemoteProtocolError) -> None:
        self.violations.append(error)
        self.changed.set()

    def bytes_of(self, stream: int) -> bytes:
        return b"".join(data for _, where, data in self.got if where == stream)

    async def until_bytes(self, stream: int, count: int) -> None:
        async with asyncio.timeout(LONG):
            while len(self.bytes_of(stream)) < count:
                self.changed.clear()
                await self.changed.wait()

    async def write(self, stream: int, data: bytes) -> None:
        """Write all of it, waiting for room."""
        loop = asyncio.get_running_loop()
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self.writes[stream], view) :]
            except BlockingIOError:
                room = asyncio.Event()
                loop.add_writer(self.writes[stream], room.set)
                try:
                    await asyncio.wait_for(room.wait(), LONG)
                finally:
                    loop.remove_writer(self.writes[stream])


@asynccontextmanager
async def plant() -> AsyncIterator[Plant]:
    made = Plant()
    made.capture.start()
    try:
        yield made
    finally:
        made.capture.close()
        made.capture.close()
        for descriptor in made.writes:
            os.close(descriptor)
        made.page.close()


async def test_both_pipes_are_read_and_owned_by_the_floor() -> None:
    async with plant() as worker:
        worker.page.set(shared.FLOOR, 3)
        await worker.write(0, b"out")
        await worker.write(1, b"err")
        await worker.until_bytes(0, 3)
        await worker.until_bytes(1, 3)
        assert sorted(worker.got) == [(3, 0, b"out"), (3, 1, b"err")]


async def test_much_output_arrives_whole() -> None:
    data = os.urandom(1000) * 5000
    async with plant() as worker:
        await worker.write(0, data)
        await worker.until_bytes(0, len(data))
        assert worker.bytes_of(0) == data


async def test_a_pause_stops_the_writer_and_a_resume_loses_nothing() -> None:
    data = b"x" * 1_000_000
    async with plant() as worker:
        worker.capture.pause()
        writing = asyncio.ensure_future(worker.write(0, data))
        await worker.write(1, b"")
        await asyncio.sleep(0)
        assert not writing.done()
        assert worker.got == []
        worker.capture.resume()
        await worker.until_bytes(0, len(data))
        await writing
        assert worker.bytes_of(0) == data


async def test_a_pipe_that_waits_for_the_other_is_not_read_without_end() -> None:
    async with plant() as worker:
        await worker.write(0, pack(TOKEN, 1, 1, FENCE))
        data = b"x" * (HELD_BYTES + 2**22)
        writing = asyncio.ensure_future(worker.write(0, data))
        async with asyncio.timeout(LONG):
            while worker.merge.held(0) <= HELD_BYTES:
                await asyncio.sleep(0)
        for _ in range(100):
            await asyncio.sleep(0)
        assert not writing.done()
        assert worker.merge.held(0) < HELD_BYTES + 2**21
        await worker.write(1, pack(TOKEN, 1, 1, FENCE))
        await worker.until_bytes(0, len(data))
        await writing
        assert worker.merge.held(0) == 0


async def test_a_forged_mark_is_told_and_ends_the_reading() -> None:
    async with plant() as worker:
        await worker.write(0, b"before" + pack(TOKEN, 99))
        async with asyncio.timeout(LONG):
            while not worker.violations:
                worker.changed.clear()
                await worker.changed.wait()
        assert worker.bytes_of(0) == b"before"


async def test_the_end_delivers_pipes_then_page() -> None:
    async with plant() as worker:
        worker.page.set(shared.STARTED, 2)
        worker.capture.pause()
        await worker.write(0, pack(TOKEN, 1) + b"in the pipe")
        worker.page.hold(0, b" and in the page")
        worker.page.hold(1, b"warning")
        worker.capture.finish()
        expected = [(1, 0, b"in the pipe"), (2, 0, b" and in the page"), (2, 1, b"warning")]
        assert worker.got == expected
        assert worker.violations == []


async def test_held_text_that_its_mark_shows_in_the_pipe_is_not_told_twice() -> None:
    async with plant() as worker:
        worker.page.set(shared.STARTED, 1)
        worker.page.set(shared.FLUSHES[0], 7)
        worker.page.hold(0, b"written")
        worker.page.set(shared.FLUSHES[1], 8)
        worker.page.hold(1, b"new")
        worker.capture.pause()
        await worker.write(0, pack(TOKEN, 1) + b"written" + pack(TOKEN, 1, 7, FLUSHED))
        await worker.write(1, pack(TOKEN, 1) + b"old" + pack(TOKEN, 1, 7, FLUSHED))
        worker.capture.finish()
        assert worker.got == [(1, 0, b"written"), (1, 1, b"old"), (1, 1, b"new")]


async def test_numbers_in_the_page_that_cannot_be_are_survived() -> None:
    async with plant() as worker:
        worker.page.set(shared.STARTED, 2**63)
        worker.page.set(shared.HELD[0], 2**64 - 1)
        worker.capture.finish()
        assert [(owner, stream, len(data)) for owner, stream, data in worker.got] == [(5, 0, shared.TEXT_SIZE)]


async def test_a_closed_pipe_is_the_end_of_that_pipe_only() -> None:
    async with plant() as worker:
        os.close(worker.writes[0])
        worker.writes[0] = os.dup(worker.writes[1])
        await worker.write(1, b"still here")
        await worker.until_bytes(1, 10)
