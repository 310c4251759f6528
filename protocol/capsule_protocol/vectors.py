"""The golden vectors: what `protocol/vectors/*.json` holds, made from the implementation.

A test compares the files with `generate()`. The files are what other implementations test against, so a difference is a
change of the protocol: look at it before you write the files anew.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgpack import packb

from capsule_protocol import framing, marks, negotiation
from capsule_protocol.codec import encode
from capsule_protocol.examples import EXAMPLES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from capsule_protocol.envelope import Buffer, Envelope

Vector = dict[str, Any]
TOKEN = bytes(range(0xA0, 0xB0))


def generate() -> dict[str, list[Vector]]:
    """The vectors of each file, by its name without `.json`."""
    return {
        "messages": [_message(name, envelope) for name, envelope in EXAMPLES],
        "malformed": list(_malformed()),
        "framing": list(_framing()),
        "marks": list(_marks()),
        "negotiation": list(_negotiation()),
    }


def write(directory: Path) -> None:
    """Write the files anew, one vector a line: `python -m capsule_protocol.vectors DIRECTORY`."""
    for name, vectors in generate().items():
        lines = ",\n".join(f"  {json.dumps(vector)}" for vector in vectors)
        (directory / f"{name}.json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def _hex(frames: Iterable[Buffer]) -> list[str]:
    return [bytes(frame).hex() for frame in frames]


def _message(name: str, envelope: Envelope) -> Vector:
    header, body, *buffers = _hex(encode(envelope))
    fields = {key: value for key, value in envelope._asdict().items() if key != "buffers"}
    return {"name": name, "envelope": fields, "header": header, "body": body, "buffers": buffers}


def _malformed() -> Iterable[Vector]:
    """Frames, limits that are not the default, and the code of the error with which they must be refused."""
    good = [1, "ack", "m_1", "s_1", "x_1", 0, 0.0]
    empty = packb({})
    frames: dict[str, tuple[str, list[bytes]]] = {
        "no frames": ("invalid_message", []),
        "no body": ("invalid_message", [packb(good)]),
        "empty header": ("invalid_message", [b"", empty]),
        "header is not msgpack": ("invalid_message", [b"\xc1", empty]),
        "header is a map": ("invalid_message", [packb({"type": "ack"}), empty]),
        "header is too short": ("invalid_message", [packb(good[:6]), empty]),
        "header has bytes behind it": ("invalid_message", [packb(good) + b"\x00", empty]),
        "type is empty": ("invalid_message", [packb([1, "", *good[2:]]), empty]),
        "type is binary": ("invalid_message", [packb([1, b"ack", *good[2:]]), empty]),
        "sequence is negative": ("invalid_message", [packb([*good[:5], -1, 0.0]), empty]),
        "sequence is a boolean": ("invalid_message", [packb([*good[:5], True, 0.0]), empty]),
        "time is text": ("invalid_message", [packb([*good[:6], "now"]), empty]),
        "epoch is negative": ("invalid_message", [packb([*good, -1]), empty]),
        "epoch is text": ("invalid_message", [packb([*good, "1"]), empty]),
        "major version 2": ("version_mismatch", [packb([2, *good[1:]]), empty]),
        "body is cut off": ("invalid_message", [packb(good), b"\x81\xa1a"]),
        "body is an array": ("invalid_message", [packb(good), b"\x90"]),
        "body has a number as a key": ("invalid_message", [packb(good), b"\x81\x01\x02"]),
        "body has a binary key inside": ("invalid_message", [packb(good), packb({"a": {b"b": 1}})]),
        "body has text that is not UTF-8": ("invalid_message", [packb(good), b"\x81\xa1a\xa1\xff"]),
        "body has an extension type": ("invalid_message", [packb(good), b"\x81\xa1a\xd4\x05\x00"]),
        "body has a timestamp": ("invalid_message", [packb(good), b"\x81\xa1a\xd6\xff\x00\x00\x00\x00"]),
        "body claims 4 G of items": ("invalid_message", [packb(good), b"\x81\xa1a\xdd\xff\xff\xff\xff"]),
        "body is nested 65 deep": ("message_too_large", [packb(good), b"\x81\xa1a" + b"\x91" * 63 + b"\x90"]),
        "1025 buffers": ("message_too_large", [packb(good), empty, *[b""] * 1025]),
        "unknown type": ("unknown_type", [packb([1, "frobnicate", *good[2:]]), empty]),
        "a field is missing": ("invalid_message", [packb([1, "execute", *good[2:]]), empty]),
        "a field has another type": ("invalid_message", [packb([1, "execute", *good[2:]]), packb({"code": 1})]),
        "a number is negative": ("invalid_message", [packb([1, "heartbeat", *good[2:]]), packb({"number": -1})]),
    }
    for name, (code, parts) in frames.items():
        yield {"name": name, "code": code, "limits": {}, "frames": _hex(parts)}
    for limit in ("header_bytes", "message_bytes"):
        frames_over = _hex([packb(good), empty])
        yield {"name": f"over {limit}", "code": "message_too_large", "limits": {limit: 16}, "frames": frames_over}


def _framing() -> Iterable[Vector]:
    """Bytes of a transport under `message_bytes`, and what comes out: the frames of a message, or a code."""
    small = b"".join(bytes(part) for part in framing.pack([b"ab", b"", b"cde"]))
    huge = b"".join(bytes(part) for part in framing.pack([b"x" * 40, b"y" * 2000]))
    mismatched = (20).to_bytes(8, "big") + (1).to_bytes(4, "big") + (9).to_bytes(8, "big") + b"01234567"
    tiny = (2).to_bytes(8, "big") + b"\x00\x00"
    for name, data, events in (
        ("two messages", small * 2, [["6162", "", "636465"]] * 2),
        ("a message over the limit is skipped", huge + small, ["message_too_large", ["6162", "", "636465"]]),
        ("sizes that do not add up", mismatched + small, ["invalid_message", ["6162", "", "636465"]]),
        ("no room for the number of frames", tiny + small, ["invalid_message", ["6162", "", "636465"]]),
    ):
        yield {"name": name, "message_bytes": 1024, "data": data.hex(), "events": events}


def _marks() -> Iterable[Vector]:
    """Bytes of a pipe, and its parts: plain bytes (hexadecimal) or [owner, fence, flags]."""
    owner, fence = marks.pack(TOKEN, 7), marks.pack(TOKEN, 8, 1, marks.FENCE | marks.MESSAGE)
    other = marks.pack(bytes(16), 9)
    for name, data, parts in (
        ("plain", b"plain\n", [b"plain\n"]),
        ("owner", b"a" + owner + b"b", [b"a", [7, 0, 0], b"b"]),
        ("two in a row", owner + fence, [[7, 0, 0], [8, 1, 3]]),
        ("another token is plain", b"a" + other, [b"a" + other]),
        ("cut off at the end", b"a" + owner[:31], [b"a"]),
    ):
        shown = [part.hex() if isinstance(part, bytes) else part for part in parts]
        yield {"name": name, "token": TOKEN.hex(), "data": data.hex(), "parts": shown}


def _negotiation() -> Iterable[Vector]:
    """Versions and limits of two ends, and what they agree on, or a code."""
    for name, ours, theirs, outcome in (
        ("the same", ["1.0"], ["1.0"], "1.0"),
        ("the smaller minor", ["1.2"], ["1.1"], "1.1"),
        ("the highest common major", ["1.4", "2.0"], ["1.2", "2.3", "3.0"], "2.0"),
        ("none in common", ["1.0"], ["2.0"], "version_mismatch"),
        ("not a version", ["1.0"], ["one"], "invalid_message"),
    ):
        yield {"name": name, "ours": ours, "theirs": theirs, "outcome": outcome}
    offer = negotiation.hello("client", frozenset({"a", "b"}))
    agreement = negotiation.agree(offer, frozenset({"b", "c"}), epoch=2)
    yield {"name": "features", "hello": offer, "features": ["b", "c"], "welcome": negotiation.welcome(agreement)}


if __name__ == "__main__":
    write(Path(sys.argv[1]))
