from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capsule_protocol.marks import FENCE, MARK_SIZE, MESSAGE, Mark, Splitter, pack

quick = settings.get_profile("protocol")
TOKENS = [b"0123456789abcdef", b"a" * 16, b"ab" * 8, b"aaaaaaaaaaaaaaab"]
marks = st.builds(Mark, st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1), st.integers(0, 3))


def joined(parts: list[bytes | Mark]) -> list[bytes | Mark]:
    """The parts with adjacent plain bytes joined: where they are cut has no meaning."""
    whole: list[bytes | Mark] = []
    for part in parts:
        if whole and isinstance(part, bytes) and isinstance(whole[-1], bytes):
            whole[-1] += part
        else:
            whole.append(part)
    return whole


@settings(quick, max_examples=100)
@given(st.sampled_from(TOKENS), st.data())
def test_any_chunking_gives_the_same_parts(token: bytes, data: st.DataObject) -> None:
    # Plain bytes over a small alphabet, and pieces of the token itself: the hard cases. None holds a whole token.
    plain = st.text("ab01", max_size=40).map(str.encode) | st.integers(0, 15).map(lambda size: token[:size])
    parts = data.draw(st.lists(plain | marks, max_size=8))
    content = b"".join(part if isinstance(part, bytes) else pack(token, *part) for part in parts)
    whole = Splitter(token)
    expected = joined(whole.feed(content))
    rest = whole.rest()

    splitter = Splitter(token)
    got: list[bytes | Mark] = []
    at = 0
    while at < len(content):
        size = data.draw(st.integers(1, 40))
        got += splitter.feed(content[at : at + size])
        at += size
        assert len(splitter._held) < MARK_SIZE
    assert joined(got) == expected
    assert splitter.rest() == rest
    assert b"".join(part if isinstance(part, bytes) else pack(token, *part) for part in expected) + rest == content


@settings(quick)
@given(st.lists(st.binary(max_size=60) | marks, max_size=8), st.integers(1, 50))
def test_marks_and_bytes_come_out_as_they_went_in(parts: list[bytes | Mark], size: int) -> None:
    token = b"\x00\xfftoken-token-to"
    sent = [part for part in parts if part]
    content = b"".join(part if isinstance(part, bytes) else pack(token, *part) for part in sent)
    splitter = Splitter(token)
    got = [part for at in range(0, len(content), size) for part in splitter.feed(content[at : at + size])]
    rest = splitter.rest()
    assert joined(got + [rest] * bool(rest)) == joined(sent)


def test_a_chunk_without_marks_is_not_copied() -> None:
    chunk = b"x" * 100_000
    assert Splitter(TOKENS[0]).feed(chunk)[0] is chunk


def test_a_mark_that_is_cut_off_is_the_rest() -> None:
    mark = pack(TOKENS[0], 7, 1, FENCE | MESSAGE)
    for size in range(1, MARK_SIZE):
        splitter = Splitter(TOKENS[0])
        assert splitter.feed(b"a" + mark[:size]) == [b"a"]
        assert splitter.rest() == mark[:size]
        assert splitter.rest() == b""


def test_a_token_has_16_bytes() -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        Splitter(b"short")
