"""Ids come from one place; a fingerprint is the same for the same request and for no other."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capsule_bridge import call_promise, fingerprint, promise_id

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
OPTIONS = st.dictionaries(st.text(), VALUES, max_size=4)


def test_ids_name_execution_and_child() -> None:
    assert promise_id("x_1") == "exec:x_1"
    assert promise_id("x_1", "input", 2) == "exec:x_1:input:2"
    assert call_promise("x_1", "cap", 2, 3) == "exec:x_1:cap:2:3"


@given(OPTIONS)
def test_the_order_of_options_does_not_matter(options: dict[str, object]) -> None:
    backwards = dict(reversed(list(options.items())))
    assert fingerprint("execute", "1+1", options) == fingerprint("execute", "1+1", backwards)


@pytest.mark.parametrize(
    "other",
    [
        ("input", "1+1", {"timeout": 1}),
        ("execute", "1+2", {"timeout": 1}),
        ("execute", "1+1", {}),
        ("execute", "1+1", {"timeout": 2}),
        ("execute", "1+1", {"timeout": "1"}),
        ("execute", "1+1", {"timeout": True}),
        ("execute", "1+1", {"timeout": None}),
        ("execute", "1+1\udc80", {"timeout": 1}),
        ("execute1", "+1", {"timeout": 1}),
    ],
    ids=repr,
)
def test_another_request_has_another_fingerprint(other: tuple[str, str, dict[str, object]]) -> None:
    assert fingerprint(*other) != fingerprint("execute", "1+1", {"timeout": 1})


def test_lone_surrogates_are_kept_apart() -> None:
    assert fingerprint("execute", "\udc80", {}) != fingerprint("execute", "\udc81", {})


def test_another_process_finds_the_same() -> None:
    """It is stored, so neither the secret of string hashes nor the order of sets may be in it."""
    options = "{'b': [1], 'a': {'d': 1, 'c': 2}}"
    code = f"from capsule_bridge import fingerprint; print(fingerprint('execute', 'ä', {options}).hex())"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert found == fingerprint("execute", "ä", {"a": {"c": 2, "d": 1}, "b": [1]}).hex()
    assert len(found) == 32
