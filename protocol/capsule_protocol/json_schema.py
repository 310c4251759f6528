"""The part of JSON Schema (2020-12) in which a question says what its answer may be, and how an answer is held to it.

Who asks and who answers may both be hostile, and the node decides. So no keyword is here whose cost nobody can bound
(`pattern`) or that leads elsewhere (other references than `#/$defs/NAME`). What is not here is refused, not ignored: an
answer that was let through has been checked. Each check counts its steps and gives up over a bound.
"""

from __future__ import annotations

import json
import operator
from fractions import Fraction
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

STEPS = 20_000
"""Of one check: less than a tenth of a second."""
NESTED = 64
"""Checks within checks."""
SHOWN = 80
"""Characters of a value that a message shows."""
MAX_PATH = 200
"""Characters of the way to it."""
LISTED = 20
"""Values, of several that are allowed, that a message shows."""


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_TYPES: dict[str, Callable[[Any], bool]] = {
    "null": lambda value: value is None,
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: _is_number(value) and value == int(value),
    "number": _is_number,
    "string": lambda value: isinstance(value, str),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
}
DEFINITIONS = "#/$defs/"
NUMERIC = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_ANNOTATIONS = frozenset({"$schema", "$comment", "title", "description", "default", "examples", "deprecated"})


class Mismatch(NamedTuple):
    """Where an answer is not as its schema wants it, how it is there, and what is allowed."""

    at: str
    found: str
    allowed: str


class SchemaError(ValueError):
    """What is no schema, or none of this part of JSON Schema."""


def check_schema(schema: Any) -> None:
    """Look whether this is a schema that `mismatch` can hold values to. Raises SchemaError."""
    if not isinstance(schema, dict):
        raise SchemaError("it is not an object")
    definitions = schema.get("$defs", {})
    if not isinstance(definitions, dict):
        raise SchemaError("$defs is not an object of schemas")
    _check(schema, "$", definitions, root=True)
    for name, part in definitions.items():
        _check(part, f"$.$defs.{name}", definitions)
        _check_ends(part, f"$.$defs.{name}", definitions)


def mismatch(value: Any, schema: dict[str, Any]) -> Mismatch | None:
    """The first thing that is wrong with a value, or None; both are as `json.loads` makes them, the schema is checked.

    What takes too long to check is a mismatch, too.
    """
    try:
        wrong = _Check(schema.get("$defs", {})).against(value, schema, ())
    except _TooMuchError as error:
        return Mismatch("$", "takes too long to check", str(error))
    if wrong is None:
        return None
    at = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in wrong.path)
    return Mismatch(f"${at}"[:MAX_PATH], wrong.found or f"is {shown(wrong.value)}", wrong.allowed())


def canonical(value: Any) -> str:
    """A text that two values share if JSON Schema calls them equal: 1 and 1.0 are, 1 and true are not."""
    return json.dumps(_normal(value), sort_keys=True)


def shown(value: Any) -> str:
    """A value for a message."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]} …"


def listed(values: list[Any]) -> str:
    """Several, of which one is allowed."""
    more = f" and {len(values) - LISTED} more" if len(values) > LISTED else ""
    return ", ".join(map(shown, values[:LISTED])) + more


def _normal(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [_normal(item) for item in value]
    if isinstance(value, dict):
        return {name: _normal(item) for name, item in value.items()}
    return value


# --- whether it is a schema ---


def _check(schema: Any, at: str, definitions: dict[str, Any], *, root: bool = False) -> None:
    if isinstance(schema, bool):
        return
    if not isinstance(schema, dict):
        raise SchemaError(f"{at} is no schema: an object, true or false")
    for keyword, wanted in schema.items():
        if keyword in _ANNOTATIONS or (root and keyword == "$defs"):
            continue
        form = _FORMS.get(keyword)
        if form is None:
            raise SchemaError(f"{at}.{keyword} is no keyword that can be checked here; known: {', '.join(_FORMS)}")
        if not form(wanted):
            raise SchemaError(f"{at}.{keyword} has a value that JSON Schema does not allow")
        if keyword == "$ref" and wanted.removeprefix(DEFINITIONS) not in definitions:
            raise SchemaError(f"{at}.$ref leads to no definition of this schema; allowed: '#/$defs/NAME'")
    for path, part in _parts(schema):
        _check(part, f"{at}.{path}", definitions)


def _parts(schema: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """The schemas within a schema."""
    for keyword in ("items", "additionalProperties", "not"):
        if keyword in schema:
            yield keyword, schema[keyword]
    for keyword in ("allOf", "anyOf", "oneOf", "prefixItems"):
        for number, part in enumerate(schema.get(keyword, ())):
            yield f"{keyword}[{number}]", part
    for name, part in schema.get("properties", {}).items():
        yield f"properties.{name}", part


def _check_ends(schema: Any, at: str, definitions: dict[str, Any]) -> None:
    """A schema that holds the same value to itself again would never come to an end."""
    seen: set[int] = set()
    ahead = [schema]
    while ahead:
        part = ahead.pop()
        if not isinstance(part, dict):
            continue
        same = [inner for keyword in ("allOf", "anyOf", "oneOf") for inner in part.get(keyword, ())]
        same += [part["not"]] if "not" in part else []
        same += [definitions[part["$ref"].removeprefix(DEFINITIONS)]] if "$ref" in part else []
        if any(inner is schema for inner in same):
            raise SchemaError(f"{at} refers to itself without end")
        ahead += [inner for inner in same if id(inner) not in seen]
        seen.update(map(id, same))


def _is_count(wanted: Any) -> bool:
    return isinstance(wanted, int) and not isinstance(wanted, bool) and wanted >= 0


def _is_list(wanted: Any) -> bool:
    return isinstance(wanted, list) and bool(wanted)


def _is_map(wanted: Any) -> bool:
    return isinstance(wanted, dict)


def _is_schema(wanted: Any) -> bool:
    return isinstance(wanted, dict | bool)


def _is_type(wanted: Any) -> bool:
    names = wanted if _is_list(wanted) else [wanted]
    return all(isinstance(name, str) and name in _TYPES for name in names)


def _is_names(wanted: Any) -> bool:
    return isinstance(wanted, list) and all(isinstance(name, str) for name in wanted)


_FORMS: dict[str, Callable[[Any], bool]] = {
    "type": _is_type,
    "enum": _is_list,
    "const": lambda _wanted: True,
    **dict.fromkeys(NUMERIC, _is_number),
    "multipleOf": lambda wanted: _is_number(wanted) and wanted > 0,
    **dict.fromkeys(("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"), _is_count),
    "uniqueItems": lambda wanted: isinstance(wanted, bool),
    "prefixItems": _is_list,
    "items": _is_schema,
    "properties": _is_map,
    "required": _is_names,
    "additionalProperties": _is_schema,
    **dict.fromkeys(("allOf", "anyOf", "oneOf"), _is_list),
    "not": _is_schema,
    "$ref": lambda wanted: isinstance(wanted, str) and wanted.startswith(DEFINITIONS),
}


# --- whether a value is as it says ---


class _TooMuchError(Exception):
    """The check gives up."""


_Path = tuple[str | int, ...]


class _Wrong(NamedTuple):
    """A mismatch that nobody may want to read: its words are made when somebody does."""

    path: _Path
    value: Any
    allowed: Callable[[], str]
    found: str = ""


class _Check:
    """One check. Each pair of a value and a schema costs a step, and as many more as there are things to look at."""

    def __init__(self, definitions: dict[str, Any]) -> None:
        self._definitions = definitions
        self._left = STEPS
        self._depth = 0
        self._texts: dict[int, str] = {}

    def against(self, value: Any, schema: Any, path: _Path) -> _Wrong | None:
        """The first mismatch."""
        self._spend(1)
        if isinstance(schema, bool):
            return None if schema else _Wrong(path, value, lambda: "nothing")
        self._depth += 1
        if self._depth > NESTED:
            raise _TooMuchError(f"at most {NESTED} schemas within each other")
        try:
            return self._whole(value, schema, path)
        finally:
            self._depth -= 1

    def _whole(self, value: Any, schema: dict[str, Any], path: _Path) -> _Wrong | None:
        allowed = self._simple(value, schema)
        if allowed is not None:
            return _Wrong(path, value, allowed)
        wrong = self._all(value, schema, path) or self._some(value, schema, path)
        if wrong is None and isinstance(value, list):
            wrong = self._array(value, schema, path)
        if wrong is None and isinstance(value, dict):
            wrong = self._object(value, schema, path)
        return wrong

    def _simple(self, value: Any, schema: dict[str, Any]) -> Callable[[], str] | None:
        """What is allowed, if the value is not that."""
        if "type" in schema:
            names = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
            if not any(_TYPES[name](value) for name in names):
                return lambda: " or ".join(names)
        for wanted in (schema.get("enum"), [schema["const"]] if "const" in schema else None):
            if wanted is not None and not self._is_among(value, wanted):
                return lambda wanted=wanted: listed(wanted)  # type: ignore[misc]  # mypy takes it for a parameter
        for keyword, words, holds in _BOUNDS:
            size = _SIZES[keyword](value) if keyword in schema else None
            if size is not None and not holds(size, schema[keyword]):
                return lambda words=words, bound=schema[keyword]: f"{words} {bound}"  # type: ignore[misc]  # as above
        return None

    def _is_among(self, value: Any, wanted: list[Any]) -> bool:
        self._spend(len(wanted))
        return self._text(value) in map(self._text, wanted)

    def _all(self, value: Any, schema: dict[str, Any], path: _Path) -> _Wrong | None:
        """What other schemas want of the same value, each of them."""
        parts = [*schema.get("allOf", ())]
        if "$ref" in schema:
            parts.append(self._definitions[schema["$ref"].removeprefix(DEFINITIONS)])
        return next((wrong for part in parts if (wrong := self.against(value, part, path)) is not None), None)

    def _some(self, value: Any, schema: dict[str, Any], path: _Path) -> _Wrong | None:
        """What some of several schemas want of the same value, or one does not."""
        for keyword in ("anyOf", "oneOf"):
            if keyword in schema:
                found = [self.against(value, part, path) for part in schema[keyword]]
                wrong = [one for one in found if one is not None]
                fitting = len(found) - len(wrong)
                if not fitting:
                    return _nearest(wrong, path, value)
                if keyword == "oneOf" and fitting > 1:
                    return _Wrong(path, value, lambda: "what one of the schemas in oneOf fits, and not several")
        if "not" in schema and self.against(value, schema["not"], path) is None:
            return _Wrong(path, value, lambda: "what the schema behind `not` does not fit")
        return None

    def _array(self, value: list[Any], schema: dict[str, Any], path: _Path) -> _Wrong | None:
        self._spend(len(value))
        if schema.get("uniqueItems") and len(set(map(self._text, value))) < len(value):
            return _Wrong(path, value, lambda: "no item twice")
        first = schema.get("prefixItems", [])
        for number, item in enumerate(value):
            part = first[number] if number < len(first) else schema.get("items", True)
            if (wrong := self.against(item, part, (*path, number))) is not None:
                return wrong
        return None

    def _object(self, value: dict[str, Any], schema: dict[str, Any], path: _Path) -> _Wrong | None:
        required = schema.get("required", ())
        self._spend(len(value) + len(required))
        for name in required:
            if name not in value:
                return _Wrong(path, value, lambda name=name: f"an object with {shown(name)}", f"has no {shown(name)}")  # type: ignore[misc]  # as above
        properties, others = schema.get("properties", {}), schema.get("additionalProperties", True)
        for name, item in value.items():
            if name not in properties and others is False:
                return _Wrong(path, value, lambda: listed([*properties]) or "no names", f"has {shown(name)}")
            if (wrong := self.against(item, properties.get(name, others), (*path, name))) is not None:
                return wrong
        return None

    def _text(self, value: Any) -> str:
        """The canonical text, made once: all values, and what they are compared with, live as long as this."""
        if not isinstance(value, list | dict):
            return canonical(value)
        if id(value) not in self._texts:
            self._texts[id(value)] = canonical(value)
        return self._texts[id(value)]

    def _spend(self, steps: int) -> None:
        self._left -= steps
        if self._left < 0:
            raise _TooMuchError(f"what can be checked in {STEPS} steps")


def _nearest(wrong: list[_Wrong], path: _Path, value: Any) -> _Wrong:
    """Of several schemas that do not fit, the one that does further in than others; or what all of them allow."""
    furthest = max(wrong, key=lambda one: len(one.path))
    if len(wrong) == 1 or len(furthest.path) > len(path):
        return furthest
    return _Wrong(path, value, lambda: " or ".join(dict.fromkeys(one.allowed() for one in wrong[:LISTED])))


def _is_multiple(value: Any, of: Any) -> bool:
    """By what JSON says of the numbers: 0.3 is a multiple of 0.1."""
    return (Fraction(repr(value)) / Fraction(repr(of))).denominator == 1


_BOUNDS: list[tuple[str, str, Callable[[Any, Any], bool]]] = [
    ("minimum", "at least", operator.ge),
    ("maximum", "at most", operator.le),
    ("exclusiveMinimum", "more than", operator.gt),
    ("exclusiveMaximum", "less than", operator.lt),
    ("multipleOf", "multiples of", _is_multiple),
    ("minLength", "characters at least", operator.ge),
    ("maxLength", "characters at most", operator.le),
    ("minItems", "items at least", operator.ge),
    ("maxItems", "items at most", operator.le),
    ("minProperties", "names at least", operator.ge),
    ("maxProperties", "names at most", operator.le),
]
_SIZES: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(NUMERIC, lambda value: value if _is_number(value) else None),
    **dict.fromkeys(("minLength", "maxLength"), lambda value: len(value) if isinstance(value, str) else None),
    **dict.fromkeys(("minItems", "maxItems"), lambda value: len(value) if isinstance(value, list) else None),
    **dict.fromkeys(("minProperties", "maxProperties"), lambda value: len(value) if isinstance(value, dict) else None),
}
"""What a bound is a bound of; None: not of this value."""
