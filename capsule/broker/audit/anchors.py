"""Anchors: signed statements of how far the trail goes, and where what is kept of it begins.

They stand in two files, of which one is written until it is large, then the other anew: there is always a whole one.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

    from nacl.signing import SigningKey

FILES = ("anchors-0.jsonl", "anchors-1.jsonl")
MAX_FILE = 2**18
_DOMAIN = b"capsule audit anchor 1\n"


class First(NamedTuple):
    """Where what is kept begins: the number of a file and of its first record, and the hash which that one has."""

    file: int
    sequence: int
    previous: str


class Anchor(NamedTuple):
    """The trail goes at least to the record `sequence`, whose line has this hash. `closed`: the node ended there."""

    sequence: int
    hash: str
    first: First
    closed: bool
    time: float


class Found(NamedTuple):
    """All anchors that are signed with a key, in order, and the number of lines that are not."""

    anchors: tuple[Anchor, ...]
    foreign: int
    newest: int = 0
    """Which of the two files has the last one."""

    @property
    def last(self) -> Anchor | None:
        """The one that counts."""
        return self.anchors[-1] if self.anchors else None


def encode(anchor: Anchor, key: SigningKey) -> bytes:
    """The signed line, without its end."""
    said = _said(anchor)
    signature = key.sign(_DOMAIN + json.dumps(said, separators=(",", ":")).encode("ascii")).signature
    return json.dumps({**said, "signature": signature.hex()}, separators=(",", ":")).encode("ascii")


def make(sequence: int, head: str, first: First, *, closed: bool) -> Anchor:
    """An anchor of now."""
    return Anchor(sequence, head, first, closed, round(time.time(), 6))


def read(folder: Path, public: bytes) -> Found:
    """The anchors of a trail that are signed with this key. What stands in an unfinished last line does not count."""
    found: list[tuple[Anchor, int]] = []
    foreign = 0
    for number, name in enumerate(FILES):
        path = folder / name
        lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
        anchors = [_decode(line, public) for line in lines]
        foreign += sum(anchor is None for anchor in anchors)
        found += [(anchor, number) for anchor in anchors if anchor is not None]
    found.sort(key=lambda one: (one[0].sequence, one[0].first.file, one[0].closed, one[0].time))
    return Found(tuple(anchor for anchor, _ in found), foreign, found[-1][1] if found else 0)


def _said(anchor: Anchor) -> dict[str, object]:
    return {**anchor._asdict(), "first": list(anchor.first)}


def _decode(line: bytes, public: bytes) -> Anchor | None:
    from nacl.exceptions import BadSignatureError
    from nacl.signing import VerifyKey

    try:
        said = json.loads(line)
        signature = bytes.fromhex(said.pop("signature"))
        VerifyKey(public).verify(_DOMAIN + json.dumps(said, separators=(",", ":")).encode("ascii"), signature)
        return Anchor(**{**said, "first": First(*said["first"])})
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, BadSignatureError):
        return None
