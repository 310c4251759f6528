"""One example for each operation, and what is made of it: arguments that almost fit, and texts that are traps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from capsule.broker.sdk import Operation
    from capsule.broker.shapes import Shape

NASTY = ("", "\0", "..", "/", "a" * 5000, "\u202e", "ﬀ", "%2e%2e", "\r\n", "'; --", "-rf", "https://[::1", "\x7f")
"""Texts that take the place of each text of an example."""


@dataclass(frozen=True, slots=True)
class Example:
    """A call that has to be accepted: its fields, and its body."""

    arguments: Mapping[str, Any] = field(default_factory=dict)
    body: bytes = b""


def misfits(operation: Operation, example: Example) -> list[dict[str, Any]]:
    """Arguments that are almost those of the example."""
    good = dict(example.arguments)
    found: list[dict[str, Any]] = [{**good, "no_such_field": 1}]
    for name, described in operation.request.model_fields.items():
        if described.is_required():
            found.append({key: value for key, value in good.items() if key != name})
        found.append({**good, name: {"no": {"such": ["thing"]}}})
    return [each for each in found if each != good]


def nasty(example: Example) -> list[dict[str, Any]]:
    """The example with each of its texts replaced by each of those."""
    return [
        {**example.arguments, name: text}
        for name, value in example.arguments.items()
        if isinstance(value, str)
        for text in NASTY
    ]


def hidden(value: Any, shape: Shape) -> Iterator[str]:
    """The texts in a value that are secret."""
    if isinstance(value, str):
        yield from [value] if shape.secret else []
    elif isinstance(value, Mapping):
        for name, each in value.items():
            yield from hidden(each, shape if shape.secret else shape.field(name))
    elif isinstance(value, list | tuple):
        for at, each in enumerate(value):
            yield from hidden(each, shape if shape.secret else shape.item(at))
