from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capsule_protocol.errors import CODES, RemoteProtocolError
from capsule_protocol.limits import Limits
from capsule_protocol.negotiation import Agreement, accept, agree, hello, welcome

quick = settings.get_profile("protocol")


def test_both_ends_come_to_the_same_agreement() -> None:
    ours, theirs = frozenset({"a", "b"}), frozenset({"b", "c"})
    offer = hello("client", ours, Limits(message_bytes=1000))
    there = agree(offer, theirs, Limits(message_bytes=2000), epoch=3)
    here = accept(welcome(there), ours, Limits(message_bytes=1000))
    assert here == there == Agreement("1.0", frozenset({"b"}), Limits(message_bytes=1000), 3)


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"version": "2.0"},
        {"version": "1.1"},
        {"version": 1},
        {"version": "1.0", "features": ["never offered"]},
        {"version": "1.0", "features": "a"},
        {"version": "1.0", "epoch": -1},
        {"version": "1.0", "limits": {"message_bytes": 0}},
        {"version": "1.0", "limits": []},
    ],
)
def test_a_welcome_that_was_not_offered_is_refused(answer: dict[str, Any]) -> None:
    with pytest.raises(RemoteProtocolError):
        accept(answer, frozenset({"a"}))


def test_a_peer_without_a_common_version_is_told_what_there_is() -> None:
    with pytest.raises(RemoteProtocolError, match=r"\['2\.0'\].*\['1\.0'\]") as caught:
        agree({"versions": ["2.0"]})
    assert caught.value.code == "version_mismatch"
    assert caught.value.details == {"versions": ["1.0"]}
    assert "Update" in caught.value.hint


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text("ab.1", max_size=5) | st.sampled_from(["1.0", "9.9", "²"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=3), inner, max_size=3),
    max_leaves=5,
)
bodies = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("versions", "version", "features", "epoch"), anything) | {"limits": anything}
)


@settings(quick)
@given(bodies)
def test_any_body_is_agreed_on_or_a_remote_error(body: dict[str, Any]) -> None:
    for judge in (agree, accept):
        code = "invalid_message"
        try:
            judge(body)
        except RemoteProtocolError as error:
            code = error.code
        assert code in CODES
