"""The body of an answer travels with the reply if it is small and soon there, and before it otherwise."""

from __future__ import annotations

import asyncio

import pytest

from capsule.broker import bodies
from capsule.broker.bodies import INLINE, Inlet, Outlet
from capsule_protocol.errors import CapabilityFailed

pytestmark = pytest.mark.anyio


class Sent:
    """What an outlet has sent."""

    def __init__(self, window: int) -> None:
        self.data = b""
        self.outlet = Outlet(window, self._take)

    def _take(self, pieces: tuple[bytes | memoryview, ...]) -> None:
        self.data += b"".join(pieces)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing waits for longer than a turn of the loop."""
    monkeypatch.setattr(bodies, "LATE", 0.0)


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_what_is_small_and_soon_there_travels_with_the_reply() -> None:
    sent = Sent(INLINE)
    await sent.outlet.send(b"one")
    await sent.outlet.send(memoryview(b" two"))
    assert b"".join(sent.outlet.rest()) == b"one two"
    assert sent.data == b""


@pytest.mark.usefixtures("at_once")
async def test_what_has_waited_is_sent_while_the_call_goes_on() -> None:
    sent = Sent(INLINE)
    await sent.outlet.send(b"one")
    assert sent.data == b""
    await turns()
    assert sent.data == b"one"
    await sent.outlet.send(b" two")
    assert sent.data == b"one two"
    assert sent.outlet.rest() == ()


@pytest.mark.usefixtures("at_once")
async def test_it_is_sent_as_far_as_there_is_room() -> None:
    sent = Sent(2)
    await sent.outlet.send(b"one")
    await turns()
    assert sent.data == b"on"
    await sent.outlet.send(b" two")
    sent.outlet.credit(3)
    assert sent.data == b"one t"
    assert b"".join(sent.outlet.rest()) == b"wo"


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("over", [Outlet.rest, Outlet.close])
async def test_nothing_is_sent_twice_or_late(over: object) -> None:
    """The reply is recorded before it is sent, which takes turns of the loop."""
    sent = Sent(INLINE)
    await sent.outlet.send(b"one")
    assert callable(over)
    over(sent.outlet)
    await turns()
    sent.outlet.credit(10)
    assert sent.data == b""


async def test_what_is_large_waits_for_room() -> None:
    sent = Sent(INLINE)
    data = bytes(range(256)) * (INLINE // 64)
    sending = asyncio.create_task(sent.outlet.send(data))
    for room in range(INLINE, len(data) + INLINE, INLINE):
        await turns()
        assert len(sent.data) == room
        assert sending.done() == (room == len(data))
        sent.outlet.credit(INLINE)
    await sending
    assert sent.data == data
    assert sent.outlet.rest() == ()


async def test_a_body_has_the_room_that_its_arguments_leave() -> None:
    inlet = Inlet([bytes(100)], more=False, give_credit=lambda _size: None)
    inlet.limit = 150
    inlet.add(50)
    assert [len(piece) async for piece in inlet] == [100]
    inlet = Inlet([bytes(100)], more=False, give_credit=lambda _size: None)
    inlet.limit = 150
    inlet.add(51)
    with pytest.raises(CapabilityFailed, match="the request has more than 150 bytes"):
        await anext(aiter(inlet))


async def test_the_fields_of_an_answer_have_the_room_that_its_body_leaves() -> None:
    for fields in (50, 51):
        sent = Sent(INLINE)
        sent.outlet.limit = 150
        await sent.outlet.send(bytes(100))
        if fields == 50:
            sent.outlet.add(fields)
        else:
            with pytest.raises(CapabilityFailed, match="the response has more than 150 bytes"):
                sent.outlet.add(fields)
