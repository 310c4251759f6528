"""What is secret in the request of a provider in a process of its own is as secret as in that of any other."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import Field, SecretStr

from capsule.broker.apart.schemas import heard, told
from capsule.broker.audit import redacted
from capsule.broker.sdk import Descriptor, Empty, Operation, Schema, secret
from capsule.broker.shapes import Shape
from capsule.broker.showing import shown

SECRET = "hunter2-hunter2"


class Login(Schema):
    user: str
    password: str = secret()


class Token(Schema):
    token: str = secret()
    user: int = 0


class Node(Schema):
    name: str = ""
    key: str = secret("")
    next: Node | None = None


class Request(Schema):
    login: Login | None = None
    either: Login | Token | None = None
    many: list[Login] = Field(default_factory=list)
    pair: tuple[str, Login] | None = None
    named: dict[str, Login] = Field(default_factory=dict)
    deep: dict[str, list[tuple[Login, ...]]] = Field(default_factory=dict)
    node: Node | None = None
    whole: Login | None = secret(None)
    token: str | None = secret(None)
    plain: list[dict[str, Any]] = Field(default_factory=list)
    anything: Any = None
    number: float | None = None


def apart(request: type[Schema]) -> type[Schema]:
    """What the node has of a request whose class it does not know."""
    descriptor = Descriptor("acme", "1", {"do": Operation("Do", request, Empty)}, untrusted=True)
    return heard(told(descriptor)).operations["do"].request


LOGIN = {"user": "u", "password": SECRET}
GIVEN: list[dict[str, Any]] = [
    {"login": LOGIN},
    {"either": LOGIN},
    {"either": {"token": SECRET, "user": 5}},
    {"many": [LOGIN, LOGIN]},
    {"pair": ["first", LOGIN]},
    {"named": {"a": LOGIN}},
    {"deep": {"a": [[LOGIN], []]}},
    {"node": {"name": "a", "key": SECRET, "next": {"key": SECRET, "next": None}}},
    {"whole": LOGIN, "token": SECRET},
    {"login": None, "plain": [{"a": [1, None, True, 0.5, "text"]}], "anything": {"b": "c"}, "number": 5},
    {},
]


@pytest.mark.parametrize("given", GIVEN, ids=[str(number) for number in range(len(GIVEN))])
def test_who_approves_sees_no_more_of_it_than_where_the_class_is_known(given: dict[str, Any]) -> None:
    text = json.dumps(given)
    seen = shown(apart(Request).model_validate_json(text))
    assert seen == shown(Request.model_validate_json(text))
    assert SECRET not in json.dumps(seen)


@pytest.mark.parametrize("given", GIVEN, ids=[str(number) for number in range(len(GIVEN))])
def test_as_much_is_told_of_it_as_where_the_class_is_known(given: dict[str, Any]) -> None:
    text = json.dumps(given)
    known = redacted(Request.model_validate_json(text))
    assert redacted(apart(Request).model_validate_json(text)) == known
    assert SECRET not in json.dumps(known)


MISPLACED: list[dict[str, Any]] = [
    {"login": f"u:{SECRET}"},
    {"login": ["u", SECRET]},
    {"login": {"user": "u", "pass": SECRET}},
    {"login": {"user": {"password": SECRET}, "password": ""}},
    {"many": LOGIN},
    {"many": [SECRET]},
    {"pair": ["first", LOGIN, SECRET]},
    {"number": SECRET},
    {"plain": [SECRET]},
]


@pytest.mark.parametrize("given", MISPLACED, ids=[str(number) for number in range(len(MISPLACED))])
def test_of_what_the_schema_does_not_describe_only_the_size_is_told(given: dict[str, Any]) -> None:
    assert SECRET not in json.dumps(redacted(apart(Request).model_validate(given)))


def test_the_words_that_pydantic_has_for_secrets_count() -> None:
    class Other(Schema):
        key: SecretStr
        keys: list[SecretStr]

    found = redacted(apart(Other).model_validate({"key": SECRET, "keys": [SECRET]}))
    assert found == {"key": {"secret_bytes": len(SECRET)}, "keys": [{"secret_bytes": len(SECRET)}]}


def test_a_request_that_is_described_by_reference_has_its_fields() -> None:
    request = apart(Node)
    assert list(request.model_fields) == ["name", "key", "next"]
    assert redacted(request.model_validate({"key": SECRET})) == {"key": {"secret_bytes": len(SECRET)}}


BROKEN: list[Any] = [
    {"$ref": "#/$defs/Nothing"},
    {"$ref": 5},
    {"type": 5},
    {"type": ["quantum"]},
    {"anyOf": 5},
    {"not": {}},
    {"properties": 5, "type": "object", "additionalProperties": False},
    False,
    5,
]


@pytest.mark.parametrize("schema", BROKEN, ids=str)
def test_what_says_nothing_that_is_understood_describes_nothing(schema: Any) -> None:
    shape = Shape.of(schema)
    assert not shape.describes(SECRET)
    assert not shape.field("a").describes(SECRET)
    assert not shape.item(0).describes(SECRET)


def test_places_are_as_many_as_the_schema_has_whatever_is_asked_for() -> None:
    shape = Shape.of(Node.model_json_schema())
    here = shape
    for number in range(1000):
        here = here.field("next")
        assert not here.field(f"no{number}").describes(1)
    assert here.field("key").secret
    assert len(shape._made) < 10


@pytest.mark.parametrize(
    ("schema", "is_number"),
    [
        ({"type": "integer"}, True),
        ({"type": "number", "minimum": 0}, True),
        ({"anyOf": [{"type": "number"}, {"type": "null"}]}, True),
        ({"type": "array", "items": {"type": "integer"}}, False),
        ({"type": "boolean"}, False),
        ({"type": "string"}, False),
        ({}, False),
    ],
)
def test_what_may_be_a_number(schema: dict[str, Any], is_number: bool) -> None:
    assert Shape.of(schema).is_number is is_number
