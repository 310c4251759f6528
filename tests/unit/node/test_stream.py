"""What Stream adds to a socket beyond what the door of a worker needs: posts travel together, and bulk waits."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from capsule.stream import BATCH, DEFAULT_BOUNDS, Bounds, PeerBusyError, Stream
from capsule_protocol.framing import NEED_DATA, FrameBuffer, pack
from capsule_protocol.limits import DEFAULT_LIMITS
from tests.unit.kernels.forked import LONG

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.anyio

LARGE = b"x" * 5_000_000
"""Many times what a socket holds."""


class Ends:
    """A stream, and the other end, which the test plays."""

    def __init__(self, bounds: Bounds) -> None:
        ours, self.peer = socket.socketpair()
        self.peer.settimeout(0)
        self.loop = asyncio.get_running_loop()
        self.got: list[bytes] = []
        self.stream = Stream(self.loop, ours, DEFAULT_LIMITS, self._take, self._broken, bounds)
        self.stream.start()
        self._incoming = FrameBuffer()

    def _take(self, frames: list[bytes]) -> None:
        self.got.append(frames[0])

    def _broken(self, error: Exception) -> None:
        raise AssertionError from error

    async def heard(self, count: int) -> list[bytes]:
        """The first frames of the next messages at the other end."""
        found: list[bytes] = []
        async with asyncio.timeout(LONG):
            while len(found) < count:
                frames = self._incoming.next_message()
                if frames is NEED_DATA:
                    self._incoming.feed(await self.loop.sock_recv(self.peer, 2**16))
                else:
                    found.append(frames[0])
        return found


@asynccontextmanager
async def ends(bounds: Bounds = DEFAULT_BOUNDS) -> AsyncIterator[Ends]:
    made = Ends(bounds)
    try:
        yield made
    finally:
        made.stream.close()
        made.peer.close()


async def test_what_is_posted_in_one_turn_travels_together_and_in_order() -> None:
    async with ends() as link:
        for number in range(50):
            link.stream.post([b"%d" % number, b""])
        with pytest.raises(BlockingIOError):
            link.peer.recv(1)
        await asyncio.sleep(0)
        whole = link.peer.recv(2**16)
        assert len(whole) == sum(len(b"".join(pack([b"%d" % number, b""]))) for number in range(50))
        link._incoming.feed(whole)
        assert await link.heard(50) == [b"%d" % number for number in range(50)]


async def test_a_send_keeps_its_place_behind_what_was_posted() -> None:
    async with ends() as link:
        link.stream.post([b"first", b""])
        link.stream.send([b"second", b""])
        assert await link.heard(2) == [b"first", b"second"]


async def test_bulk_is_overtaken_and_keeps_its_own_order() -> None:
    async with ends() as link:
        link.stream.post([b"under way", LARGE], bulk=True)
        await asyncio.sleep(0)
        for number in range(3):
            link.stream.post([b"bulk %d" % number, LARGE], bulk=True)
        link.stream.post([b"urgent", b""])
        link.stream.send([b"urgent too", b""])
        assert await link.heard(6) == [b"under way", b"urgent", b"urgent too", b"bulk 0", b"bulk 1", b"bulk 2"]


async def test_too_much_for_a_peer_that_does_not_read_is_refused() -> None:
    async with ends(Bounds(messages=10)) as link:
        link.stream.post([b"x", LARGE])
        await asyncio.sleep(0)
        for bulk, room in ((False, 9), (True, 10)):
            for _ in range(room):
                link.stream.post([b"x", b""], bulk=bulk)
            with pytest.raises(PeerBusyError):
                link.stream.post([b"x", b""], bulk=bulk)


@pytest.mark.parametrize("bulk", [False, True])
async def test_few_large_messages_are_refused_as_many_small_ones_are(bulk: bool) -> None:
    async with ends(Bounds(bytes=3 * len(LARGE))) as link:
        for _ in range(3):  # the last one goes beyond, with its head
            link.stream.post([b"large", LARGE], bulk=bulk)
        with pytest.raises(PeerBusyError):
            link.stream.post([b"small"])
        with pytest.raises(PeerBusyError):
            link.stream.post([b"small"], bulk=True)
        with pytest.raises(PeerBusyError):
            link.stream.send([b"small"])
        assert await link.heard(3) == [b"large"] * 3
        await asyncio.sleep(0)
        link.stream.post([b"again"], bulk=bulk)
        assert await link.heard(1) == [b"again"]


async def test_one_message_beyond_the_bound_is_taken_if_nothing_waits() -> None:
    async with ends(Bounds(bytes=1)) as link:
        link.stream.send([b"sent", LARGE])
        assert await link.heard(1) == [b"sent"]
        await asyncio.sleep(0)
        link.stream.post([b"posted", LARGE])
        assert await link.heard(1) == [b"posted"]


async def test_who_waits_for_the_peer_is_told_when_it_has_all_or_has_gone() -> None:
    async with ends() as link:
        await link.stream.flushed()  # nothing was said
        link.stream.post([b"large", LARGE])
        waiting = [asyncio.ensure_future(link.stream.flushed()) for _ in range(2)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not any(one.done() for one in waiting)
        waiting[0].cancel()
        assert await link.heard(1) == [b"large"]
        await asyncio.wait_for(waiting[1], LONG)
        link.stream.post([b"nobody", LARGE])
        waiting[0] = asyncio.ensure_future(link.stream.flushed())
        await asyncio.sleep(0)
        link.peer.close()
        await asyncio.wait_for(waiting[0], LONG)


async def test_last_words_are_said_and_a_peer_that_reads_none_holds_nobody_up() -> None:
    async with ends() as link:
        link.stream.post([b"goodbye", b""])
        link.stream.post([b"too large", LARGE])
        link.stream.close()
        assert link.stream.disconnected.done()
        link.stream.post([b"nobody", b""])
        assert await link.heard(1) == [b"goodbye"]


async def test_many_small_messages_leave_others_their_turn() -> None:
    async with ends() as link:
        count = 5 * BATCH
        data = b"".join(pack([b"", b""])) * count
        assert len(data) < 2**16
        link.peer.sendall(data)
        seen = set()
        async with asyncio.timeout(LONG):
            while len(link.got) < count:
                await asyncio.sleep(0)
                seen.add(len(link.got))
        assert len(seen) >= 5


async def test_an_end_that_hangs_up_behind_many_messages_is_told_after_them() -> None:
    async with ends() as link:
        count = 5 * BATCH
        link.peer.sendall(b"".join(pack([b"", b""])) * count)
        link.peer.close()
        await asyncio.wait_for(asyncio.shield(link.stream.disconnected), LONG)
        assert len(link.got) == count
