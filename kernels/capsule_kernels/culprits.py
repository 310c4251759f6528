"""Where in a value the object is that kept it from being saved: `jobs['first'][2].lock`. Runs no code of the user's."""

from __future__ import annotations

import types
from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

LOOKED_AT = 20_000
"""Objects among which it is looked for; then nobody knows."""
DEEPEST = 200
"""Characters that a path may have."""


def path_to(culprit: Any, name: str, value: Any) -> str:
    """The shortest path from a name to an object in its value; `""` if it is not found among plain containers."""
    seen = {id(value)}
    waiting = deque([(name, value)])
    while waiting and len(seen) < LOOKED_AT:
        path, owner = waiting.popleft()
        if owner is culprit:
            return path
        for step, inner in _inside(owner):
            if id(inner) not in seen and len(path) + len(step) <= DEEPEST:
                seen.add(id(inner))
                waiting.append((path + step, inner))
    return ""


def _inside(value: Any) -> Iterator[tuple[str, Any]]:
    """The parts of a value, each with the step that leads to it."""
    kind = type(value)
    if kind is list or kind is tuple:
        yield from ((f"[{number}]", inner) for number, inner in _taken(enumerate(value)))
    elif kind is dict:
        yield from ((f"[{key!r}]" if type(key) in (str, int) else "[…]", inner) for key, inner in _taken(value.items()))
    elif kind is set or kind is frozenset:
        yield from (("{…}", inner) for inner in _taken(value))
    else:
        attributes = _attributes(value)
        yield from ((f".{key}", inner) for key, inner in _taken(attributes.items()) if type(key) is str)


def _taken(items: Iterable[Any]) -> list[Any]:
    """The items, unless another thread changes them meanwhile."""
    try:
        return list(items)
    except RuntimeError:
        return []


def _attributes(value: Any) -> dict[str, Any]:
    """The instance's own dictionary, asked of the interpreter: a class may call anything `__dict__`."""
    for kind in type.__dict__["__mro__"].__get__(type(value)):
        found = type.__dict__["__dict__"].__get__(kind).get("__dict__")
        if found is not None:
            attributes = found.__get__(value) if type(found) is types.GetSetDescriptorType else None
            return attributes if type(attributes) is dict else {}
    return {}
