"""The node's sockets lose nothing, stop on request, wait for nobody, and tell when the peer misbehaves or leaves."""

from __future__ import annotations

import asyncio
import socket
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from capsule.node.worker_link import Door
from capsule.stream import BATCH, MAX_WAITING
from capsule_protocol.codec import decode, encode
from capsule_protocol.envelope import Buffer, Envelope
from capsule_protocol.errors import LocalProtocolError, RemoteProtocolError
from capsule_protocol.framing import NEED_DATA, FrameBuffer, pack
from capsule_protocol.limits import Limits
from tests.unit.kernels.forked import LONG

pytestmark = pytest.mark.anyio

LIMITS = Limits(message_bytes=100_000)
MEBIBYTE = 2**20
SEVERAL = 20 * MEBIBYTE
"""Many times what a socket holds."""


class Pair:
    """A door and a plain socket at the other end, which the test plays."""

    def __init__(self, directory: Path, limits: Limits) -> None:
        self.loop = asyncio.get_running_loop()
        self.got: list[Envelope] = []
        self.broken: list[RemoteProtocolError] = []
        self.changed = asyncio.Event()
        self.door = Door(self.loop, limits, self._on_envelope, self._on_broken)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(str(directory / "door.sock"))
            listener.listen(1)
            self.door.connect(directory / "door.sock")
            self.peer = listener.accept()[0]
        self.peer.settimeout(0)
        self.incoming = FrameBuffer()

    def _on_envelope(self, envelope: Envelope) -> None:
        self.got.append(envelope)
        self.changed.set()

    def _on_broken(self, error: RemoteProtocolError) -> None:
        self.broken.append(error)
        self.changed.set()

    async def say(self, *numbers: int, text: str = "") -> None:
        for number in numbers:
            await self.say_frames(encode(Envelope("progress", {"text": text}, sequence=number)))

    async def say_frames(self, frames: Sequence[Buffer]) -> None:
        await self.loop.sock_sendall(self.peer, b"".join(pack(frames, Limits(buffers=10**6))))

    async def heard(self) -> Envelope:
        """What the door sent, at the other end."""
        async with asyncio.timeout(LONG):
            while (frames := self.incoming.next_message()) is NEED_DATA:
                data = await self.loop.sock_recv(self.peer, 2**16)
                assert data, "the door has hung up"
                self.incoming.feed(data)
        return decode(frames)

    async def until(self, count: int) -> None:
        async with asyncio.timeout(LONG):
            while len(self.got) + len(self.broken) < count:
                self.changed.clear()
                await self.changed.wait()

    async def until_disconnected(self) -> None:
        await asyncio.wait_for(asyncio.shield(self.door.disconnected), LONG)

    async def turns(self) -> None:
        """Let the loop see all that is there to be seen."""
        for _ in range(10):
            await asyncio.sleep(0)


@asynccontextmanager
async def pair(limits: Limits = LIMITS) -> AsyncIterator[Pair]:
    with tempfile.TemporaryDirectory(prefix="capsule-") as directory:
        made = Pair(Path(directory), limits)
        try:
            yield made
        finally:
            made.door.close()
            made.door.close()
            made.peer.close()


async def test_many_messages_arrive_in_order_and_none_is_forgotten() -> None:
    async with pair() as link:
        count = 40 * BATCH + 1
        saying = asyncio.ensure_future(link.say(*range(count)))
        await link.until(count)
        await saying
        assert [envelope.sequence for envelope in link.got] == list(range(count))


async def test_each_side_answers_the_other() -> None:
    async with pair() as link:
        for number in range(500):
            await link.say(number)
            link.door.send(Envelope("heartbeat", {"number": number}))
            assert (await link.heard()).body == {"number": number}
            await link.until(number + 1)


async def test_a_message_that_comes_byte_by_byte() -> None:
    async with pair() as link:
        for byte in b"".join(pack(encode(Envelope("progress", {"text": "x"}, sequence=7)))):
            await link.loop.sock_sendall(link.peer, bytes([byte]))
            await link.turns()
        await link.until(1)
        assert link.got[0].sequence == 7


async def test_a_paused_door_takes_nothing_and_a_resumed_one_takes_all() -> None:
    async with pair() as link:
        await link.say(1)
        await link.until(1)
        link.door.pause()
        await link.say(*range(2, 10))
        link.door.send(Envelope("heartbeat", {"number": 1}))
        await link.heard()
        assert len(link.got) == 1
        link.door.resume()
        await link.until(9)
        assert [envelope.sequence for envelope in link.got] == list(range(1, 10))


async def test_who_pauses_at_a_message_gets_no_other_until_it_resumes() -> None:
    async with pair() as link:
        taken: list[int] = []

        def take(envelope: Envelope) -> None:
            taken.append(envelope.sequence)
            link.door.pause()
            link.changed.set()

        link.door._on_envelope = take
        await link.say(*range(5))  # one read brings all of them
        for number in range(5):
            async with asyncio.timeout(LONG):
                while len(taken) <= number:
                    await asyncio.sleep(0)
            await link.turns()
            assert taken == list(range(number + 1))
            link.door.resume()


async def test_a_paused_door_holds_no_more_than_the_system_and_one_read() -> None:
    async with pair(Limits(message_bytes=2 * MEBIBYTE)) as link:
        link.door.pause()
        sent = 0
        try:
            while True:
                sent += link.peer.send(bytes(MEBIBYTE))
        except BlockingIOError:
            await link.turns()
        with pytest.raises(BlockingIOError):
            link.peer.send(b"x")
        assert sent < MEBIBYTE


async def test_a_peer_that_leaves_is_told_after_its_last_words() -> None:
    async with pair() as link:
        link.door.send(Envelope("heartbeat", {"number": 1}))  # which it never reads
        link.door.pause()
        await link.say(*range(100))
        link.peer.close()
        link.door.send(Envelope("heartbeat", {"number": 2}))  # nobody is there to take it: what was said stays
        link.door.end()
        await link.until_disconnected()
        link.door.drain_rest()
        assert [envelope.sequence for envelope in link.got] == list(range(100))


async def test_the_rest_is_drained_at_once() -> None:
    async with pair() as link:
        await link.say(*range(100))
        link.peer.close()
        link.door.drain_rest()
        assert [envelope.sequence for envelope in link.got] == list(range(100))
        assert link.door.disconnected.done()


async def test_a_peer_that_is_not_there_has_hung_up() -> None:
    door = Door(asyncio.get_running_loop(), LIMITS, lambda _: None, lambda _: None)
    door.connect(Path("/nowhere/door.sock"))
    assert door.disconnected.done()
    door.send(Envelope("heartbeat", {"number": 1}))
    door.close()


async def test_a_door_that_has_ended_pauses_no_more() -> None:
    async with pair() as link:
        link.door.end()
        link.door.pause()
        await link.say(1)
        await link.until(1)


async def test_a_closed_door_tells_nothing_more() -> None:
    async with pair() as link:

        def take(envelope: Envelope) -> None:
            link.got.append(envelope)
            link.door.close()

        link.door._on_envelope = take
        await link.say(1, 2, 3)
        await link.until_disconnected()
        assert len(link.got) == 1


@pytest.mark.parametrize("frames", [[b""], [b"x"] * 5, [b"\xc1", b"\xc1"]])
async def test_garbage_is_told(frames: list[bytes]) -> None:
    async with pair() as link:
        await link.say_frames(frames)
        await link.until(1)
        assert link.got == []
        assert link.broken[0].code == "invalid_message"


async def test_a_message_over_the_limit_is_told_before_it_has_come() -> None:
    async with pair() as link:
        await link.loop.sock_sendall(link.peer, (2**62).to_bytes(8, "big"))
        await link.until(1)
        assert link.broken[0].code == "message_too_large"


async def test_frames_over_the_limit_together_are_told() -> None:
    async with pair() as link:
        await link.say_frames([b"x"] + [bytes(30_000)] * 4)
        await link.until(1)
        assert link.broken[0].code == "message_too_large"


async def test_what_is_over_the_limit_is_not_sent_and_the_door_stays_usable() -> None:
    async with pair() as link:
        with pytest.raises(LocalProtocolError, match="message_bytes=100000"):
            link.door.send(Envelope("execute", {"code": "x" * 100_001}))
        link.door.send(Envelope("heartbeat", {"number": 1}))
        assert (await link.heard()).type == "heartbeat"


async def test_what_the_peer_does_not_take_at_once_follows_in_order() -> None:
    async with pair(Limits(message_bytes=2 * SEVERAL)) as link:
        buffer = bytearray(b"x" * SEVERAL)
        link.door.send(Envelope("comm_msg", {"number": 0}, buffers=(memoryview(buffer),)))
        buffer[:] = b"y" * SEVERAL  # the caller's again
        for number in range(1, 50):
            link.door.send(Envelope("comm_msg", {"number": number}))
        first = await link.heard()
        assert bytes(first.buffers[0]) == b"x" * SEVERAL
        assert [(await link.heard()).body["number"] for _ in range(1, 50)] == list(range(1, 50))
        link.door.send(Envelope("heartbeat", {"number": 50}))
        assert (await link.heard()).type == "heartbeat"


async def test_a_peer_that_takes_nothing_is_told_and_blocks_nobody() -> None:
    async with pair() as link:
        sent = 0
        while not link.broken:
            link.door.send(Envelope("execute", {"code": "x" * 1000}))
            sent += 1
        assert "takes no messages" in link.broken[0].message
        assert sent > MAX_WAITING
