"""Anchors: signed statements of how far the trail goes, and where what is kept of it begins.

They stand in two files, of which one is written until it is large, then the other anew: there is always a whole one.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from pathlib import Path

    from nacl.signing import SigningKey

FILES = ("anchors-0.jsonl", "anchors-1.jsonl")
MAX_FILE = 2**18
_DOMAIN = b"capsule audit anchor 1\n"
OLD_UNSIGNED = 100_000
"""What stands for `unsigned` in anchors of nodes that did not say it: more than any of them wrote in 5 s."""


class First(NamedTuple):
    """Where what is kept begins: the number of a file and of its first record, and the hash which that one has."""

    file: int
    sequence: int
    previous: str


class Anchor(NamedTuple):
    """The trail goes at least to the record `sequence`, whose line has this hash. `closed`: the node ended there.

    `unsigned`: a node writes no more records than so many until the next anchor.
    """

    sequence: int
    hash: str
    first: First
    closed: bool
    time: float
    unsigned: int = OLD_UNSIGNED


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


Known: TypeAlias = dict[bytes, Anchor | None]


def encode(anchor: Anchor, key: SigningKey) -> bytes:
    """The signed line, without its end."""
    said = _said(anchor)
    signature = key.sign(_DOMAIN + json.dumps(said, separators=(",", ":")).encode("ascii")).signature
    return json.dumps({**said, "signature": signature.hex()}, separators=(",", ":")).encode("ascii")


def make(sequence: int, head: str, first: First, unsigned: int, *, closed: bool) -> Anchor:
    """An anchor of now."""
    return Anchor(sequence, head, first, closed, round(time.time(), 6), unsigned)


def read(folder: Path, public: bytes, known: Known | None = None) -> Found:
    """The anchors of a trail that are signed with this key. What stands in an unfinished last line does not count.

    `known`: what lines were found to say when they were read before, which saves looking at their signatures again.
    """
    known = {} if known is None else known
    found: list[tuple[Anchor, int]] = []
    foreign = 0
    for number, name in enumerate(FILES):
        path = folder / name
        lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
        anchors = [known[line] if line in known else known.setdefault(line, _decode(line, public)) for line in lines]
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
