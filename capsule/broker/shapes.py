"""What a JSON schema says of values, place by place: which are secret, which are numbers, and which it says nothing of.

For requests of providers whose classes the node does not have. Where several schemas hold for one place, it is secret
if one of them says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_TYPES: dict[str, type | tuple[type, ...]] = {
    "null": type(None),
    "boolean": bool,
    "integer": int,
    "number": (int, float),
    "string": str,
    "array": (list, tuple),
    "object": dict,
}
_SAYS = frozenset({"type", "$ref", "anyOf", "oneOf", "allOf", "not", "if", "then", "else"})
"""Keywords of schemas that do not hold for each and every value."""


class Shape:
    """One place. Those that lie in it are made when they are asked for, once: there are as many as the schema has."""

    def __init__(self, schemas: Iterable[Any], whole: Any, made: dict[frozenset[int], Shape] | None = None) -> None:
        self._whole = whole
        self._parts = _resolved(schemas, whole)
        self._made = {} if made is None else made
        self.secret = any(map(_is_secret, self._parts))
        """Whether nobody is to see what is here."""

    @classmethod
    def of(cls, schema: Any) -> Shape:
        """That of whole values."""
        return cls([schema], schema)

    @property
    def names(self) -> tuple[str, ...]:
        """The fields that are described, in their order."""
        return tuple(dict.fromkeys(str(name) for part in self._parts for name in _map(part, "properties")))

    @property
    def required(self) -> frozenset[str]:
        """Those of them that have to be given."""
        return frozenset(str(name) for part in self._parts for name in _list(part, "required"))

    @property
    def is_number(self) -> bool:
        """Whether a number may be here."""
        return any(_type(part) & {"integer", "number"} for part in self._parts)

    @property
    def default(self) -> Any:
        """What is here when nothing is given."""
        return next((part["default"] for part in self._parts if "default" in part), None)

    def describes(self, value: Any) -> bool:
        """Whether a schema speaks of values of this type. If none does, nobody knows what in it is secret."""
        return any(_holds(part, value) for part in self._parts)

    def field(self, name: str) -> Shape:
        """What lies under this name."""
        return self._inner(each for part in self._parts for each in _of_field(part, name))

    def item(self, at: int) -> Shape:
        """What lies in a list at this place."""
        return self._inner(each for part in self._parts for each in _of_item(part, at))

    def _inner(self, found: Iterator[Any]) -> Shape:
        schemas = list(found)
        key = frozenset(_ANY if each is True else id(each) for each in schemas)
        if key not in self._made:
            self._made[key] = Shape(schemas, self._whole, self._made)
        return self._made[key]


_ANY = 0
"""What stands for the schema of anything, where others have their `id`."""


def _resolved(schemas: Iterable[Any], whole: Any) -> list[dict[str, Any]]:
    """These schemas and those that they name for the same value."""
    ahead, found, seen = list(schemas), [], set()
    while ahead:
        part = {} if (part := ahead.pop(0)) is True else part
        if not isinstance(part, dict) or id(part) in seen:
            continue
        seen.add(id(part))
        found.append(part)
        ahead += [each for keyword in ("anyOf", "oneOf", "allOf") for each in _list(part, keyword)]
        if "$ref" in part:
            ahead.append(_named(part["$ref"], whole))
    return found


def _named(reference: Any, whole: Any) -> Any:
    """What a reference leads to; None if that is nothing."""
    here = whole
    for step in str(reference).removeprefix("#/").split("/"):
        here = here.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(here, dict) else None
    return here


def _is_secret(part: dict[str, Any]) -> bool:
    return part.get("x-secret") is True or part.get("writeOnly") is True or part.get("format") == "password"


def _holds(part: dict[str, Any], value: Any) -> bool:
    if not _SAYS & part.keys():
        return True
    known = [_TYPES[name] for name in _type(part) if name in _TYPES]
    return any(isinstance(value, each) and (each is bool or not isinstance(value, bool)) for each in known)


def _type(part: dict[str, Any]) -> set[str]:
    said = part.get("type")
    return {str(each) for each in (said if isinstance(said, list) else [said]) if each is not None}


def _of_field(part: dict[str, Any], name: str) -> list[Any]:
    properties = _map(part, "properties")
    if name in properties:
        return [properties[name]]
    others = [*_map(part, "patternProperties").values()]
    if "additionalProperties" in part:
        return [*others, part["additionalProperties"]]
    return others if others or properties or not _holds(part, {}) else [True]


def _of_item(part: dict[str, Any], at: int) -> list[Any]:
    first = _list(part, "prefixItems")
    if at < len(first):
        return [first[at]]
    if "items" in part:
        return [part["items"]]
    return [] if first or not _holds(part, []) else [True]


def _map(part: dict[str, Any], keyword: str) -> dict[str, Any]:
    found = part.get(keyword)
    return found if isinstance(found, dict) else {}


def _list(part: dict[str, Any], keyword: str) -> list[Any]:
    found = part.get(keyword)
    return found if isinstance(found, list) else []
