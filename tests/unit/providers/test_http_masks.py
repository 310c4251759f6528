"""No secret comes back, however it is cut into pieces; and what is no secret comes back as it is."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capsule.providers.http.masks import Mask

SECRET = 's3/cr"t +x'


def masked(mask: Mask, parts: list[bytes]) -> bytes:
    return b"".join([*map(mask.feed, parts), mask.end()])


@pytest.mark.parametrize(
    "form",
    [
        SECRET,
        quote(SECRET, safe=""),
        quote(SECRET, safe="").lower(),
        SECRET.replace(" ", "+").replace("+x", "%2Bx").replace("/", "%2F").replace('"', "%22"),
        json.dumps(SECRET)[1:-1],
        base64.b64encode(SECRET.encode()).decode().rstrip("="),
    ],
)
def test_a_secret_is_hidden_in_each_of_its_forms(form: str) -> None:
    mask = Mask([SECRET])
    data = f"before {form} after {form}".encode()
    expected = f"before {'*' * len(form)} after {'*' * len(form)}".encode()
    assert masked(mask, [data]) == expected
    assert masked(mask, [data[n : n + 1] for n in range(len(data))]) == expected
    assert mask.text(f"<{form}>") == f"<{'*' * len(form)}>"


@given(st.lists(st.sampled_from(["ab", "abab", "abcabd", "b"]), min_size=1), st.data())
def test_pieces_give_what_the_whole_gives(secrets: list[str], data: st.DataObject) -> None:
    parts = data.draw(st.lists(st.text("abcdx ", max_size=6).map(str.encode)))
    whole = b"".join(parts)
    got = masked(Mask(secrets), parts)
    assert len(got) == len(whole)
    assert all(new in (old, ord("*")) for old, new in zip(whole, got, strict=True))
    for secret in secrets:
        assert secret.encode() not in got


@given(st.lists(st.binary()))
def test_what_is_no_secret_passes(parts: list[bytes]) -> None:
    assert masked(Mask([]), parts) == b"".join(parts)
    assert masked(Mask(["a secret that is not there"]), parts) == b"".join(parts)


def test_nothing_is_held_back_but_where_a_secret_may_have_begun() -> None:
    mask = Mask(["token-12345"])
    assert mask.feed(b"data: tok\n\n") == b"data: tok\n\n"
    assert mask.feed(b"data: tok") + mask.feed(b"en-1234") + mask.feed(b"6\n") == b"data: token-12346\n"
    assert mask.feed("é".encode() * 100) == "é".encode() * 100
    assert mask.feed(b"x" * 100)[:80] == b"x" * 80
    assert mask.end()


@given(st.lists(st.text(max_size=30).map(str.encode)), st.sampled_from(["t", "token", "token-1234", "dG9rZW4"]))
def test_what_comes_at_once_says_nothing_of_how_a_secret_begins(parts: list[bytes], guess: str) -> None:
    """A server that sends a guess and pauses would be an oracle: as much is held back for any of that length."""
    real, other = Mask(["token-12345"]), Mask(["nekot-54321"])
    for part in [*parts, guess.encode(), guess[:1].encode()]:
        assert real.feed(part) == other.feed(part)
