from __future__ import annotations

import struct
import threading
import tracemalloc
from collections import OrderedDict
from typing import Any, NamedTuple

import msgpack
import pytest
import zmq
from hypothesis import example, given, settings
from hypothesis import strategies as st

from capsule_protocol.codec import decode, encode
from capsule_protocol.envelope import Envelope
from capsule_protocol.errors import CODES, LocalProtocolError, RemoteProtocolError
from capsule_protocol.limits import Limits
from capsule_protocol.messages import parse

quick = settings.get_profile("protocol")

# An alphabet of its own: the tables of all of Unicode take Hypothesis seconds to build.
text = st.text("aZ_ \x00\n\x7f\u00e9\u07ff\u0800\u20ac\uffff\U0001f600", max_size=20)
scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | text | st.binary()
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4), max_leaves=6
)
envelopes = st.builds(
    Envelope,
    type=text.filter(bool),
    body=st.dictionaries(text, values, max_size=6),
    id=text,
    session=text,
    execution=text,
    sequence=st.integers(0, 2**64 - 1),
    time=st.floats(allow_nan=False),
    buffers=st.lists(st.binary(max_size=50), max_size=4).map(tuple),
    epoch=st.integers(0, 2**53),
)


@settings(quick)
@given(envelopes)
def test_what_is_decoded_is_what_was_encoded(envelope: Envelope) -> None:
    assert decode(encode(envelope)) == envelope


@settings(quick, max_examples=100)
@given(st.lists(st.binary(max_size=60), max_size=5))
@example([b"\x97\x01\xa1a\xa0\xa0\xa0\x00\x00", b"\x80"])
@example([b"\xc7\x00\xff", b"\x80"])
def test_garbage_raises_a_remote_error_only(frames: list[bytes]) -> None:
    decode_or_refuse(frames)


@settings(quick, max_examples=100)
@given(envelopes, st.data())
def test_a_damaged_message_raises_a_remote_error_or_is_a_message(envelope: Envelope, data: st.DataObject) -> None:
    frames = [bytearray(frame) for frame in encode(envelope)]
    frame = data.draw(st.sampled_from(frames[:2]))
    position = data.draw(st.integers(0, len(frame) - 1))
    if data.draw(st.booleans()):
        frame[position] = data.draw(st.integers(0, 255))
    else:
        del frame[position:]
    decode_or_refuse([bytes(frame) for frame in frames])


@settings(quick)
@given(st.dictionaries(text, values, max_size=4) | values, st.sampled_from(["execute", "open", "history_reply", "x"]))
def test_a_body_of_any_shape_raises_a_remote_error_only(body: Any, kind: str) -> None:
    decode_or_refuse([msgpack.packb([1, kind, "", "", "", 0, 0.0]), msgpack.packb(body)])


def decode_or_refuse(frames: list[bytes]) -> None:
    code = "invalid_message"
    try:
        parse(decode(frames))
    except RemoteProtocolError as error:
        code = error.code
    assert code in CODES


def test_buffers_are_not_copied_on_either_way() -> None:
    data = bytearray(b"x" * 100)
    frames = encode(Envelope("a", {}, buffers=(memoryview(data),)))
    assert isinstance(frames[2], memoryview)
    assert frames[2].obj is data
    received = decode([*frames[:2], memoryview(data)]).buffers[0]
    assert isinstance(received, memoryview)
    assert received.obj is data


def test_buffers_of_any_item_size_travel_as_bytes() -> None:
    numbers: Any = memoryview(struct.pack("4d", 1, 2, 3, 4)).cast("d")
    frames = encode(Envelope("a", {}, buffers=(numbers,)))
    assert len(frames[2]) == 32
    with pytest.raises(LocalProtocolError, match="contiguous"):
        encode(Envelope("a", {}, buffers=(numbers[::2],)))


def test_frames_of_zeromq_are_decoded_as_they_are() -> None:
    frames = [zmq.Frame(bytes(frame)) for frame in encode(Envelope("a", {"b": [1]}, buffers=(b"xyz",)))]
    envelope = decode(frames)
    assert envelope.body == {"b": [1]}
    assert bytes(envelope.buffers[0]) == b"xyz"


@pytest.mark.parametrize(
    ("limits", "name"),
    [
        (Limits(message_bytes=1000), "message_bytes=1000"),
        (Limits(header_bytes=30), "header_bytes=30"),
        (Limits(buffers=1), "buffers=1"),
    ],
)
def test_a_message_over_a_limit_is_an_error_that_names_it_on_both_ends(limits: Limits, name: str) -> None:
    envelope = Envelope("a", {}, id="i" * 40, buffers=(b"x" * 500, b"y" * 500))
    with pytest.raises(LocalProtocolError, match=name) as local:
        encode(envelope, limits)
    with pytest.raises(RemoteProtocolError, match=name) as remote:
        decode(encode(envelope), limits)
    assert local.value.code == remote.value.code == "message_too_large"
    assert local.value.details == remote.value.details


def test_a_large_body_without_buffers_is_refused_too() -> None:
    with pytest.raises(LocalProtocolError, match="message_bytes=1000"):
        encode(Envelope("a", {"text": "x" * 2000}), Limits(message_bytes=1000))


def nested(depth: int) -> dict[str, Any]:
    body: dict[str, Any] = {}
    for level in range(depth - 1):
        body = {"a": body} if level % 2 else {"a": [], "b": body}
    return body


def test_nesting_is_bounded_on_both_ends() -> None:
    assert decode(encode(Envelope("a", nested(64)))).body == nested(64)
    with pytest.raises(LocalProtocolError, match="depth=64"):
        encode(Envelope("a", nested(65)))
    with pytest.raises(RemoteProtocolError, match="depth=64"):
        decode(encode(Envelope("a", nested(65)), Limits(depth=65)))
    with pytest.raises(RemoteProtocolError, match="depth=1"):
        decode(encode(Envelope("a", nested(2))), Limits(depth=1))
    assert decode(encode(Envelope("a", nested(1))), Limits(depth=1)).body == {}


@pytest.mark.parametrize("size", [10, 2**18])
def test_items_are_bounded_on_both_ends(size: int) -> None:
    body: dict[str, Any] = {"a": [{"b": ()}] * 5, "text": "x" * size}
    exact = Limits(items=(4 + 2 * 4) + (4 + 5) + 5 * (4 + 4 + 4))  # body, list, maps of a pair and an empty list
    assert decode(encode(Envelope("a", body), exact), exact).type == "a"
    with pytest.raises(LocalProtocolError, match="items=80: it has 81"):
        encode(Envelope("a", body), Limits(items=80))
    with pytest.raises(RemoteProtocolError, match="items=80: it has 81"):
        decode(encode(Envelope("a", body)), Limits(items=80))


def test_a_body_of_many_empty_arrays_is_refused_before_it_fills_memory() -> None:
    header = msgpack.packb([1, "a", "", "", "", 0, 0.0])
    rows = 2_000
    row = b"\xdc\x10\x00" + b"\x90" * 4096
    body = b"\x81\xa1a\xdd" + rows.to_bytes(4, "big") + row * rows
    tracemalloc.start()
    try:
        with pytest.raises(RemoteProtocolError, match="items=20000"):
            decode([header, body], Limits(items=20_000))
        assert tracemalloc.get_traced_memory()[1] < 8_000_000
    finally:
        tracemalloc.stop()


def test_one_array_over_the_limit_is_refused_before_it_is_made() -> None:
    header = msgpack.packb([1, "a", "", "", "", 0, 0.0])
    with pytest.raises(RemoteProtocolError):
        decode([header, b"\x81\xa1a\xdd\x00\x60\x00\x00" + b"\xc0" * 0x600000])


@pytest.mark.parametrize("body", [{1: 2}, {"a": {b"b": 1}}, {"a": [{"c": {None: 1}}]}])
def test_keys_that_are_not_text_are_a_local_error(body: dict[Any, Any]) -> None:
    with pytest.raises(LocalProtocolError, match="not text"):
        encode(Envelope("a", body))


def test_subclasses_of_maps_and_arrays_are_checked_too() -> None:
    class Point(NamedTuple):
        x: int

    assert decode(encode(Envelope("a", {"a": OrderedDict(b=Point(1))}))).body == {"a": {"b": [1]}}
    with pytest.raises(LocalProtocolError, match="not text"):
        encode(Envelope("a", {"a": OrderedDict({"b": Point({1: 2})})}))  # type: ignore[arg-type]  # the point


@pytest.mark.parametrize("value", [object(), {1, 2}, 2**64, {"a": lambda: None}])
def test_what_msgpack_cannot_carry_is_a_local_error(value: object) -> None:
    with pytest.raises(LocalProtocolError) as caught:
        encode(Envelope("a", {"value": value}))
    assert caught.value.code == "invalid_message"


def test_a_value_that_holds_itself_is_a_local_error() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(LocalProtocolError):
        encode(Envelope("a", {"value": loop}))


def test_lone_surrogates_travel_escaped() -> None:
    assert decode(encode(Envelope("a", {"text": "a\udc80b"}))).body == {"text": "a\\udc80b"}


def test_items_behind_the_header_are_ignored() -> None:
    header = msgpack.packb([1, "ack", "m", "s", "x", 4, 0.5, 2, "of a later version", {}])
    assert decode([header, b"\x80"]) == Envelope("ack", {}, "m", "s", "x", 4, 0.5, epoch=2)


def test_threads_may_encode_at_once() -> None:
    wrong: list[object] = []

    def work(number: int) -> None:
        envelope = Envelope("a", {"n": [number] * 50, "text": str(number) * 100})
        wrong.extend(1 for _ in range(500) if decode(encode(envelope)) != envelope)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
