"""Answers are held to JSON Schema as everybody else reads it, in bounded time; what is not checked is refused."""

from __future__ import annotations

import json
import time
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capsule_protocol.json_schema import NESTED, STEPS, SchemaError, canonical, check_schema, mismatch

# Few values and names, so that schemas and values meet.
SCALARS = st.sampled_from([None, True, False, 0, 1, 1.0, 2, 2.5, -1, 1e300, "", "a", "ab", "é"])
NAMES = st.sampled_from(["a", "b", "c"])
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=3), max_leaves=8
)
TYPES = st.sampled_from(["null", "boolean", "integer", "number", "string", "array", "object"])
COUNTS = st.integers(0, 3)
BOUNDS = st.sampled_from([-1, 0, 1, 1.5, 2])


def combined(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    some = st.lists(inner, min_size=1, max_size=3)
    return st.fixed_dictionaries(
        {},
        optional={
            "type": TYPES | st.lists(TYPES, min_size=1, max_size=2, unique=True),
            "enum": st.lists(VALUES, min_size=1, max_size=3),
            "const": VALUES,
            **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), BOUNDS),
            "multipleOf": st.integers(1, 3),
            **dict.fromkeys(("minLength", "maxLength", "minItems", "maxItems"), COUNTS),
            **dict.fromkeys(("minProperties", "maxProperties"), COUNTS),
            "uniqueItems": st.booleans(),
            "prefixItems": some,
            "items": inner,
            "properties": st.dictionaries(NAMES, inner, max_size=2),
            "required": st.lists(NAMES, max_size=2, unique=True),
            "additionalProperties": inner,
            **dict.fromkeys(("allOf", "anyOf", "oneOf"), some),
            "not": inner,
            "title": st.just("a title"),
        },
    )


SCHEMAS = st.recursive(st.booleans() | combined(st.booleans()), combined, max_leaves=4)


@settings(max_examples=400, deadline=None)
@given(SCHEMAS.filter(lambda schema: isinstance(schema, dict)), VALUES)
def test_it_says_what_the_reference_says(schema: dict[str, Any], value: Any) -> None:
    check_schema(schema)
    jsonschema.Draft202012Validator.check_schema(schema)
    expected = jsonschema.Draft202012Validator(schema).is_valid(value)
    assert (mismatch(value, schema) is None) == expected


@given(VALUES, VALUES)
def test_canonical_texts_are_equal_as_values_are(one: Any, other: Any) -> None:
    equal = jsonschema.Draft202012Validator({"const": one}).is_valid(other)
    assert (canonical(one) == canonical(other)) == equal


LIST = {
    "$defs": {
        "list": {"type": "object", "properties": {"value": {"type": "integer"}, "next": {"$ref": "#/$defs/list"}}}
    },
    "$ref": "#/$defs/list",
}


def test_references_to_definitions_are_followed_also_to_themselves() -> None:
    check_schema(LIST)
    assert mismatch({"value": 1, "next": {"value": 2}}, LIST) is None
    wrong = mismatch({"value": 1, "next": {"value": "2"}}, LIST)
    assert wrong is not None
    assert (wrong.at, wrong.found, wrong.allowed) == ("$.next.value", 'is "2"', "integer")


@pytest.mark.parametrize(
    ("value", "schema", "expected"),
    [
        (70_000, {"maximum": 65_535}, ("$", "is 70000", "at most 65535")),
        ("abc", {"maxLength": 2}, ("$", 'is "abc"', "characters at most 2")),
        (0.35, {"multipleOf": 0.1}, ("$", "is 0.35", "multiples of 0.1")),
        ([1, "x"], {"items": {"type": "integer"}}, ("$[1]", 'is "x"', "integer")),
        ([1, 1.0], {"uniqueItems": True}, ("$", "is [1, 1.0]", "no item twice")),
        ({}, {"required": ["a"]}, ("$", 'has no "a"', 'an object with "a"')),
        ({"b": 1}, {"properties": {"a": {}}, "additionalProperties": False}, ("$", 'has "b"', '"a"')),
        ({"b": 1}, {"additionalProperties": False}, ("$", 'has "b"', "no names")),
        ("c", {"enum": ["a", "b"]}, ("$", 'is "c"', '"a", "b"')),
        ("c", {"anyOf": [{"type": "null"}, {"const": "a"}]}, ("$", 'is "c"', 'null or "a"')),
        (
            {"a": -1},
            {"anyOf": [{"type": "null"}, {"properties": {"a": {"minimum": 0}}}]},
            ("$.a", "is -1", "at least 0"),
        ),
        (1, {"not": {}}, ("$", "is 1", "what the schema behind `not` does not fit")),
        (1, {"oneOf": [{}, {}]}, ("$", "is 1", "what one of the schemas in oneOf fits, and not several")),
        ("x" * 200, {"type": "null"}, ("$", "is " + json.dumps("x" * 200)[:80] + " …", "null")),
        (30, {"enum": list(range(30))}, ("$", "is 30", ", ".join(map(str, range(20))) + " and 10 more")),
    ],
)
def test_a_mismatch_says_where_what_and_what_is_allowed(
    value: Any, schema: Any, expected: tuple[str, str, str]
) -> None:
    check_schema(schema)
    assert mismatch(value, schema) == expected


def test_multiples_are_those_of_the_written_numbers() -> None:
    assert mismatch(0.3, {"multipleOf": 0.1}) is None
    assert mismatch(1e300, {"multipleOf": 7e-300}) is not None


@pytest.mark.parametrize(
    "schema",
    [
        [],
        "integer",
        {"pattern": "a*"},
        {"format": "date"},
        {"patternProperties": {}},
        {"$ref": "https://example.org/schema"},
        {"$ref": "#"},
        {"$ref": "#/$defs/none"},
        {"$id": "https://example.org/schema"},
        {"properties": {"a": {"pattern": "a*"}}},
        {"$defs": {"a": {"pattern": "a*"}}},
        {"$defs": []},
        {"items": {"$defs": {}}},
        {"items": [{}]},
        {"type": "int"},
        {"type": []},
        {"type": [["string"]]},
        {"enum": []},
        {"enum": "ab"},
        {"minimum": "1"},
        {"minimum": True},
        {"exclusiveMinimum": True},
        {"multipleOf": 0},
        {"minLength": -1},
        {"minLength": 1.5},
        {"uniqueItems": 1},
        {"required": "a"},
        {"required": [1]},
        {"properties": []},
        {"properties": {"a": 1}},
        {"allOf": []},
        {"anyOf": {}},
        {"not": None},
        {"$defs": {"a": {"$ref": "#/$defs/a"}}},
        {"$defs": {"a": {"anyOf": [{"$ref": "#/$defs/b"}]}, "b": {"not": {"$ref": "#/$defs/a"}}}},
    ],
    ids=json.dumps,
)
def test_what_cannot_be_checked_is_refused(schema: Any) -> None:
    with pytest.raises(SchemaError) as caught:
        check_schema(schema)
    assert str(caught.value)


HUGE = [list(range(200)) for _ in range(80)]
COSTLY: dict[str, tuple[Any, dict[str, Any]]] = {
    "many schemas": (list(range(10_000)), {"items": {"anyOf": [*({"const": -n} for n in range(1, 700)), {}]}}),
    "many values in one schema": (list(range(10_000)), {"items": {"not": {"enum": [-n for n in range(1, 1_000)]}}}),
    "items that are compared again and again": (HUGE, {"allOf": [{"uniqueItems": True}] * 240}),
    "a value that is compared again and again": (
        {"a": HUGE},
        {"allOf": [{"not": {"const": [n]}} for n in range(5_000)]},
    ),
    "mismatches that nobody reads": ({"a": HUGE}, {"anyOf": [{"type": "string"}] * 5_000 + [{}]}),
}


@pytest.mark.parametrize("case", COSTLY)
def test_a_check_ends_soon_whatever_is_checked(case: str) -> None:
    value, schema = COSTLY[case]
    check_schema(schema)
    begun = time.process_time()
    mismatch(value, schema)
    assert time.process_time() - begun < 1  # its own time, and more than ten times what it takes


def test_who_takes_too_long_is_refused() -> None:
    schema = {"items": {"anyOf": [*({"const": -n} for n in range(1, 100)), {}]}}
    check_schema(schema)
    assert mismatch(list(range(1_000)), schema) == (
        "$",
        "takes too long to check",
        f"what can be checked in {STEPS} steps",
    )


def test_schemas_within_each_other_have_a_bound() -> None:
    names = [f"d{n}" for n in range(NESTED + 1)]
    definitions = {one: {"$ref": f"#/$defs/{other}"} for one, other in zip(names, [*names[1:], "end"], strict=True)}
    schema = {"$ref": "#/$defs/d0", "$defs": definitions | {"end": {}}}
    check_schema(schema)
    found = mismatch(1, schema)
    assert found is not None
    assert found.allowed == f"at most {NESTED} schemas within each other"


def test_where_a_mismatch_is_has_a_bound() -> None:
    found = mismatch({"n" * 10_000: 1}, {"additionalProperties": {"type": "string"}})
    assert found is not None
    assert len(found.at) == 200
