"""The files in `protocol/vectors/` are what other implementations test against; here ours does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from capsule_protocol import negotiation
from capsule_protocol.codec import decode, encode
from capsule_protocol.envelope import Envelope
from capsule_protocol.errors import RemoteProtocolError
from capsule_protocol.framing import NEED_DATA, FrameBuffer
from capsule_protocol.limits import Limits
from capsule_protocol.marks import Mark, Splitter
from capsule_protocol.messages import MESSAGES, parse
from capsule_protocol.vectors import generate

DIRECTORY = Path(__file__).parents[3] / "protocol" / "vectors"
FILES = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(DIRECTORY.glob("*.json"))}


def vectors(file: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("vector", FILES[file], ids=lambda vector: vector["name"])


def frames_of(vector: dict[str, Any]) -> list[bytes]:
    return [bytes.fromhex(part) for part in (vector["header"], vector["body"], *vector["buffers"])]


def test_the_files_are_what_the_implementation_makes() -> None:
    assert json.loads(json.dumps(generate())) == FILES


def test_every_type_has_a_vector() -> None:
    assert {vector["envelope"]["type"] for vector in FILES["messages"]} == set(MESSAGES)


@vectors("messages")
def test_message(vector: dict[str, Any]) -> None:
    frames = frames_of(vector)
    envelope = decode(frames)
    assert envelope == Envelope(**vector["envelope"], buffers=tuple(frames[2:]))
    assert encode(envelope) == frames
    assert envelope.type == parse(envelope).TYPE


@vectors("malformed")
def test_malformed(vector: dict[str, Any]) -> None:
    frames = [bytes.fromhex(frame) for frame in vector["frames"]]
    with pytest.raises(RemoteProtocolError) as caught:
        parse(decode(frames, Limits(**vector["limits"])))
    assert caught.value.code == vector["code"]


@vectors("framing")
def test_framing(vector: dict[str, Any]) -> None:
    buffer = FrameBuffer(Limits(message_bytes=vector["message_bytes"]))
    buffer.feed(bytes.fromhex(vector["data"]))
    for expected in vector["events"]:
        if isinstance(expected, str):
            with pytest.raises(RemoteProtocolError) as caught:
                buffer.next_message()
            assert caught.value.code == expected
        else:
            assert buffer.next_message() == [bytes.fromhex(frame) for frame in expected]
    assert buffer.next_message() is NEED_DATA


@vectors("marks")
def test_marks(vector: dict[str, Any]) -> None:
    splitter = Splitter(bytes.fromhex(vector["token"]))
    parts = [bytes.fromhex(part) if isinstance(part, str) else Mark(*part) for part in vector["parts"]]
    assert splitter.feed(bytes.fromhex(vector["data"])) == parts


@vectors("negotiation")
def test_negotiation(vector: dict[str, Any]) -> None:
    if "hello" in vector:
        agreement = negotiation.agree(vector["hello"], frozenset(vector["features"]), epoch=2)
        assert negotiation.welcome(agreement) == vector["welcome"]
        return
    try:
        outcome = negotiation.agree({"versions": vector["theirs"]}, versions=tuple(vector["ours"])).version
    except RemoteProtocolError as error:
        outcome = error.code
    assert outcome == vector["outcome"]
