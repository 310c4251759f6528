"""The node's sockets lose no wake-up, stop on request, and tell when the other end misbehaves or leaves."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import zmq

from capsule.node.worker_link import HIGH_WATER, Door
from capsule.sockets import BATCH
from capsule_protocol.codec import decode, encode
from capsule_protocol.envelope import Envelope
from capsule_protocol.errors import LocalProtocolError, RemoteProtocolError
from capsule_protocol.limits import Limits
from tests.unit.kernels.forked import LONG

pytestmark = pytest.mark.anyio

LIMITS = Limits(message_bytes=100_000)


class Pair:
    """A door and a plain socket at the other end, which the test plays."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], directory: Path, limits: Limits, sndhwm: int) -> None:
        self.peer = context.socket(zmq.DEALER)
        self.peer.linger = 0
        self.peer.sndhwm = sndhwm
        self.peer.bind(f"ipc://{directory}/door.sock")
        self.got: list[Envelope] = []
        self.broken: list[RemoteProtocolError] = []
        self.changed = asyncio.Event()
        self.door = Door(context, asyncio.get_running_loop(), limits, self._on_envelope, self._on_broken)
        self.door.connect(directory / "door.sock")

    def _on_envelope(self, envelope: Envelope) -> None:
        self.got.append(envelope)
        self.changed.set()

    def _on_broken(self, error: RemoteProtocolError) -> None:
        self.broken.append(error)
        self.changed.set()

    def say(self, number: int, text: str = "") -> None:
        self.peer.send_multipart(encode(Envelope("progress", {"text": text}, sequence=number)))

    def say_all(self, numbers: range) -> None:
        for number in numbers:
            self.say(number)

    async def heard(self) -> Envelope:
        """What the door sent, at the other end."""
        async with asyncio.timeout(LONG):
            while not self.peer.poll(0):
                await asyncio.sleep(0.001)
        return decode(self.peer.recv_multipart())

    async def until(self, count: int) -> None:
        async with asyncio.timeout(LONG):
            while len(self.got) + len(self.broken) < count:
                self.changed.clear()
                await self.changed.wait()


@asynccontextmanager
async def pair(limits: Limits = LIMITS, sndhwm: int = 1000) -> AsyncIterator[Pair]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with tempfile.TemporaryDirectory(prefix="capsule-") as directory:
        made = Pair(context, Path(directory), limits, sndhwm)
        try:
            yield made
        finally:
            made.door.close()
            made.door.close()
            made.peer.close(0)
            context.term()


async def test_many_messages_arrive_in_order_and_none_is_forgotten() -> None:
    async with pair() as link:
        count = 4 * BATCH + 1
        saying = asyncio.get_running_loop().run_in_executor(None, link.say_all, range(count))
        await link.until(count)
        await saying
        assert [envelope.sequence for envelope in link.got] == list(range(count))


async def test_a_send_that_swallows_a_wake_up_loses_no_message() -> None:
    """Ping-pong: each side sends while the other's message may be arriving."""
    async with pair() as link:
        for number in range(500):
            link.say(number)
            link.door.send(Envelope("heartbeat", {"number": number}))
            assert (await link.heard()).body == {"number": number}
            await link.until(number + 1)


async def test_a_paused_door_takes_nothing_and_a_resumed_one_takes_all() -> None:
    async with pair() as link:
        link.say(1)
        await link.until(1)
        link.door.pause()
        for number in range(2, 10):
            link.say(number)
        link.door.send(Envelope("heartbeat", {"number": 1}))
        await link.heard()
        assert len(link.got) == 1
        link.door.resume()
        await link.until(9)
        assert [envelope.sequence for envelope in link.got] == list(range(1, 10))


async def test_a_peer_that_leaves_is_told_after_its_last_words() -> None:
    async with pair() as link:
        link.door.send(Envelope("heartbeat", {"number": 1}))
        await link.heard()
        link.door.pause()
        for number in range(HIGH_WATER):
            link.say(number)
        link.peer.close(LONG_LINGER)
        link.door.end()
        await asyncio.wait_for(asyncio.shield(link.door.disconnected), LONG)
        link.door.drain_rest()
        assert [envelope.sequence for envelope in link.got] == list(range(HIGH_WATER))


async def test_a_paused_door_holds_few_large_messages() -> None:
    """Each may be of message_bytes, so what ZeroMQ holds for a node that does not read is counted on one hand."""
    async with pair(Limits(message_bytes=2 * MEBIBYTE), sndhwm=1) as link:
        large = encode(Envelope("progress", {"text": "x" * MEBIBYTE}))
        link.peer.send_multipart(large)
        await link.until(1)
        link.door.pause()
        sent = 0
        while link.peer.poll(QUIET, zmq.POLLOUT):
            link.peer.send_multipart(large)
            sent += 1
        assert sent <= 2 * HIGH_WATER  # the peer holds one or two of its own
        link.door.resume()
        await link.until(1 + sent)
        count = 4 * BATCH
        saying = asyncio.get_running_loop().run_in_executor(None, link.say_all, range(count))
        await link.until(1 + sent + count)
        await saying


MEBIBYTE = 2**20
QUIET = 200
"""Milliseconds after which a full link is not going to take more."""


async def test_a_door_that_has_ended_pauses_no_more() -> None:
    async with pair() as link:
        link.door.end()
        link.door.pause()
        link.say(1)
        await link.until(1)


LONG_LINGER = 10_000


@pytest.mark.parametrize("frames", [[b""], [b"x"] * 5, [b"\xc1", b"\xc1"]])
async def test_garbage_is_told(frames: list[bytes]) -> None:
    async with pair() as link:
        link.peer.send_multipart(frames)
        await link.until(1)
        assert link.got == []
        assert link.broken[0].code == "invalid_message"


async def test_a_frame_over_the_limit_ends_the_connection() -> None:
    async with pair() as link:
        link.peer.send_multipart([b"x", bytes(LIMITS.message_bytes + 1)])
        await asyncio.wait_for(asyncio.shield(link.door.disconnected), LONG)
        assert link.got == []


async def test_frames_over_the_limit_together_are_told() -> None:
    async with pair() as link:
        link.peer.send_multipart([b"x"] + [bytes(30_000)] * 4)
        await link.until(1)
        assert link.broken[0].code == "message_too_large"


async def test_what_is_over_the_limit_is_not_sent_and_the_door_stays_usable() -> None:
    async with pair() as link:
        with pytest.raises(LocalProtocolError, match="message_bytes=100000"):
            link.door.send(Envelope("execute", {"code": "x" * 100_001}))
        link.door.send(Envelope("heartbeat", {"number": 1}))
        assert (await link.heard()).type == "heartbeat"


async def test_a_peer_that_takes_nothing_is_told_and_blocks_nobody() -> None:
    async with pair() as link:
        while not link.broken:
            link.door.send(Envelope("execute", {"code": "x" * 1000}))
        assert "takes no messages" in link.broken[0].message
