"""Bodies are unpacked piece by piece, and are what was packed."""

from __future__ import annotations

import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capsule.providers.http.decoding import PIECE, Gunzip, decoder
from capsule_protocol.errors import CapabilityFailed


def unpacked(parts: list[bytes]) -> bytes:
    gunzip = Gunzip()
    pieces = [piece for part in parts for piece in gunzip.feed(part)]
    gunzip.end()
    assert all(len(piece) <= PIECE for piece in pieces)
    return b"".join(pieces)


@given(st.lists(st.binary(), min_size=1), st.integers(1, 50))
def test_members_in_any_cut_come_out_whole(members: list[bytes], size: int) -> None:
    packed = b"".join(map(gzip.compress, members))
    assert unpacked([packed[n : n + size] for n in range(0, len(packed), size)]) == b"".join(members)


@pytest.mark.parametrize("size", [PIECE - 1, PIECE, PIECE + 1, 40 * PIECE])
def test_large_bodies_come_in_pieces(size: int) -> None:
    assert unpacked([gzip.compress(bytes(size))]) == bytes(size)


@pytest.mark.parametrize("behind", [b"\0", b"\0" * 1000, b"garbage"])
def test_padding_behind_the_end_is_overlooked(behind: bytes) -> None:
    assert unpacked([gzip.compress(b"abc") + behind, behind]) == b"abc"


@pytest.mark.parametrize("size", range(1, 22))
def test_a_body_that_ends_too_early_is_an_error(size: int) -> None:
    packed = gzip.compress(b"abc")
    with pytest.raises(CapabilityFailed, match="in the middle"):
        unpacked([packed[:size]])


@given(st.binary(min_size=1))
def test_garbage_is_an_error_and_nothing_else(data: bytes) -> None:
    with pytest.raises(CapabilityFailed):
        unpacked([data])
    with pytest.raises(CapabilityFailed):
        unpacked([gzip.compress(b"abc")[:12] + b"\xff" + data])


def test_nothing_is_nothing() -> None:
    assert unpacked([]) == unpacked([b""]) == b""


def test_only_known_packings_are_undone() -> None:
    assert decoder("br") is decoder("gzip, gzip") is decoder("deflate") is None
    assert list(decoder("identity").feed(zlib.compress(b"a"))) == [zlib.compress(b"a")]  # type: ignore[union-attr]
