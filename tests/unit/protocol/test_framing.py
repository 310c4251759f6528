from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capsule_protocol.errors import LocalProtocolError, RemoteProtocolError
from capsule_protocol.framing import NEED_DATA, FrameBuffer, pack
from capsule_protocol.limits import Limits

quick = settings.get_profile("protocol")
messages = st.lists(st.lists(st.binary(max_size=40), max_size=5), max_size=6)


def packed(frames: list[bytes]) -> bytes:
    return b"".join(bytes(part) for part in pack(frames))


def drain(buffer: FrameBuffer) -> list[list[bytes] | str]:
    """All that the buffer gives now: messages, and the codes of what it refused."""
    events: list[list[bytes] | str] = []
    while True:
        try:
            message = buffer.next_message()
        except RemoteProtocolError as error:
            events.append(error.code)
            continue
        if message is NEED_DATA:
            return events
        events.append(message)


def feed_in_pieces(buffer: FrameBuffer, data: bytes, cuts: list[int]) -> list[list[bytes] | str]:
    events: list[list[bytes] | str] = []
    start = 0
    for cut in [*sorted(cut % (len(data) + 1) for cut in cuts), len(data)]:
        buffer.feed(data[start:cut])
        events += drain(buffer)
        start = cut
    return events


cuts = st.lists(st.integers(0, 10_000), max_size=12)


@settings(quick)
@given(messages, cuts)
def test_messages_come_out_whole_however_they_are_cut(sent: list[list[bytes]], cuts: list[int]) -> None:
    buffer = FrameBuffer()
    assert feed_in_pieces(buffer, b"".join(map(packed, sent)), cuts) == sent
    assert not buffer.incomplete


@settings(quick)
@given(messages, cuts)
def test_a_message_over_the_limit_is_refused_once_and_the_rest_arrives(
    sent: list[list[bytes]], cuts: list[int]
) -> None:
    limits = Limits(message_bytes=50, buffers=2)
    buffer = FrameBuffer(limits)
    expected: list[list[bytes] | str] = [
        "message_too_large" if len(frames) > 4 or sum(map(len, frames)) > 50 else frames for frames in sent
    ]
    assert feed_in_pieces(buffer, b"".join(map(packed, sent)), cuts) == expected


@settings(quick, max_examples=80)
@given(st.binary(max_size=200), cuts)
def test_garbage_raises_a_remote_error_only(data: bytes, cuts: list[int]) -> None:
    feed_in_pieces(FrameBuffer(Limits(message_bytes=64)), data, cuts)


@settings(quick, max_examples=80)
@given(st.binary(max_size=60), cuts)
def test_the_link_is_usable_behind_any_sized_message(content: bytes, cuts: list[int]) -> None:
    data = len(content).to_bytes(8, "big") + content + packed([b"next"])
    assert feed_in_pieces(FrameBuffer(Limits(message_bytes=1000)), data, cuts)[-1] == [b"next"]


def test_a_refused_message_is_not_kept_in_memory() -> None:
    buffer = FrameBuffer(Limits(message_bytes=1000))
    size = 10_000_000
    buffer.feed((size + 100).to_bytes(8, "big"))
    with pytest.raises(RemoteProtocolError, match="message_bytes=1000"):
        buffer.next_message()
    for _ in range(100):
        buffer.feed(b"x" * (size // 100))
        assert buffer.incomplete
        assert len(buffer._data) == 0
    buffer.feed(b"y" * 100)
    assert not buffer.incomplete


def test_the_sender_refuses_what_the_receiver_would() -> None:
    with pytest.raises(LocalProtocolError, match="message_bytes=10"):
        pack([b"x" * 11], Limits(message_bytes=10))
    with pytest.raises(LocalProtocolError, match="buffers=1"):
        pack([b""] * 4, Limits(buffers=1))


def test_a_message_at_the_limit_passes() -> None:
    limits = Limits(message_bytes=10, buffers=0)
    buffer = FrameBuffer(limits)
    buffer.feed(b"".join(bytes(part) for part in pack([b"x" * 6, b"y" * 4], limits)))
    assert buffer.next_message() == [b"x" * 6, b"y" * 4]


def test_an_unfinished_message_is_told() -> None:
    buffer = FrameBuffer()
    buffer.feed(packed([b"abc"])[:-1])
    assert buffer.next_message() is NEED_DATA
    assert buffer.incomplete
