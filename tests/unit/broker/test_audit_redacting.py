"""What the audit trail has of arguments: never a secret, never much."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from capsule.broker.audit import redacted, unchecked
from capsule.broker.sdk import Schema, secret

SECRET = "hunter2-hunter2"


class Header(Schema):
    name: str
    value: str = secret()


class Request(Schema):
    url: str = ""
    headers: tuple[Header, ...] = ()
    named: dict[str, Header] = Field(default_factory=dict)
    one: Header | None = None
    token: str | None = secret(None)
    parts: dict[str, str] = secret({})
    deep: dict[str, tuple[tuple[Header, ...], ...]] = Field(default_factory=dict)
    data: bytes = b""
    numbers: tuple[float, ...] = ()
    ratio: float = 0.0
    flags: frozenset[str] = frozenset()


def test_only_what_was_given_is_told() -> None:
    assert redacted(Request()) == {}
    assert redacted(Request(url="u", ratio=0.0)) == {"url": "u", "ratio": 0.0}


def test_secrets_are_told_as_their_size() -> None:
    header = Header(name="n", value=SECRET)
    found = redacted(
        Request(
            token=SECRET,
            parts={"a": SECRET},
            headers=(header,),
            named={"x": header},
            one=header,
            deep={"d": ((header,),)},
        )
    )
    assert SECRET not in json.dumps(found)
    told = {"name": "n", "value": {"secret_bytes": len(SECRET)}}
    assert found == {
        "token": {"secret_bytes": len(SECRET)},
        "parts": {"secret_bytes": len(json.dumps({"a": SECRET}))},
        "headers": [told],
        "named": {"x": told},
        "one": told,
        "deep": {"d": [[told]]},
    }


def test_large_values_are_told_as_size_and_hash() -> None:
    found = redacted(Request(url="u" * 257, data=b"d"))
    assert [set(found[name]) for name in ("url", "data")] == [{"bytes", "blake2b"}] * 2
    assert found["url"]["bytes"] == 257
    assert redacted(Request(numbers=(1.0,) * 1000)) == {"numbers": {"items": 1000}}
    assert set(redacted(Request(flags=frozenset(f"{n:0100}" for n in range(30))))["flags"]) == {"bytes", "blake2b"}
    assert redacted(Request(url="u" * 256)) == {"url": "u" * 256}


def test_numbers_that_json_has_not_are_told_as_text() -> None:
    assert redacted(Request(ratio=float("nan"))) == {"ratio": "nan"}
    json.dumps(redacted(Request(numbers=(float("inf"),))))


def test_of_what_fits_no_schema_only_sizes_are_told() -> None:
    assert unchecked({"token": SECRET, "n": 5}) == {"token": {"bytes": len(SECRET)}, "n": {"bytes": 1}}
    assert len(unchecked({str(number): number for number in range(10_000)})) == 65


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text() | st.binary() | st.integers(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.text(max_size=300), JSON))
def test_whatever_the_worker_sends_can_be_told(arguments: dict[str, Any]) -> None:
    assert len(json.dumps(unchecked(arguments))) < 2**16


class Anything(BaseModel):
    value: Any = None
    other: Any = secret(None)


@pytest.mark.parametrize(
    "value", [object(), Path("x"), {1, 2}, {"a": {2: 3}}, "\ud800", [Header(name="n", value=SECRET)]]
)
def test_values_of_any_type_can_be_told(value: Any) -> None:
    assert SECRET not in json.dumps(redacted(Anything(value=value, other=value)))
