"""Frames of a program's outputs: whatever the pieces are, what comes out is what went in, or it is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capsule_protocol.errors import RemoteProtocolError
from capsule_protocol.program_output import HEADER, MAX_FRAME_BYTES, STDERR, STDOUT, Frames, split

contents = st.lists(st.tuples(st.sampled_from([STDOUT, STDERR]), st.binary(min_size=1, max_size=40)), max_size=8)


def body_of(frames: list[tuple[int, bytes]]) -> bytes:
    return b"".join(HEADER.pack(stream, len(content)) + content for stream, content in frames)


@given(contents, st.integers(1, 17))
def test_what_comes_in_any_pieces_is_what_was_written(frames: list[tuple[int, bytes]], size: int) -> None:
    body = body_of(frames)
    reader = Frames()
    seen = [frame for start in range(0, len(body), size) for frame in reader.feed(body[start : start + size])]
    reader.end()
    assert seen == frames


@given(contents)
def test_a_body_that_is_cut_off_is_refused(frames: list[tuple[int, bytes]]) -> None:
    body = body_of(frames)
    for cut in range(1, len(body_of(frames[-1:]))):
        with pytest.raises(RemoteProtocolError):
            split(body[:-cut])


def test_both_outputs_are_put_together() -> None:
    assert split(body_of([(1, b"a"), (2, b"x"), (1, b"b")])) == (b"ab", b"x")


@pytest.mark.parametrize("header", [(0, 1), (3, 1), (STDOUT, 0), (STDERR, MAX_FRAME_BYTES + 1), (255, 2**32 - 1)])
def test_what_is_no_frame_is_refused_at_once(header: tuple[int, int]) -> None:
    with pytest.raises(RemoteProtocolError):
        list(Frames().feed(HEADER.pack(*header)))
