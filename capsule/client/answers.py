"""What a session answers to questions about code: typed, and free of the wire's form."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Completion:
    """What may stand between `start` and `end` (offsets in characters) of the code."""

    matches: list[str]
    start: int
    end: int
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Inspection:
    """What is known of the name at the cursor, as a MIME bundle; empty unless `found`."""

    found: bool
    data: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Completeness:
    """Whether code can run as it is; for `incomplete`, `indent` is what the next line may begin with."""

    status: Literal["complete", "incomplete", "invalid", "unknown"]
    indent: str = ""


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One cell that ran: `line` is its number in the session number `session` of the worker's history."""

    session: int
    line: int
    source: str


@dataclass(frozen=True, slots=True)
class Variable:
    """One name of the namespace, described; the value itself never leaves the worker. `size` is in bytes or items."""

    name: str
    type: str
    size: int | None = None
    shape: tuple[int, ...] | None = None
    repr: str = ""


@dataclass(frozen=True, slots=True)
class Namespace:
    """The names that the session's code has defined; `truncated` counts those left out."""

    entries: list[Variable]
    truncated: int = 0

    def __getitem__(self, name: str) -> Variable:
        for entry in self.entries:
            if entry.name == name:
                return entry
        raise KeyError(name)

    def __contains__(self, name: object) -> bool:
        return any(entry.name == name for entry in self.entries)


def variable(entry: dict[str, Any]) -> Variable:
    """One entry of a `namespace_summary_reply`."""
    shape = entry.get("shape")
    return Variable(
        name=entry["name"],
        type=entry.get("type", ""),
        size=entry.get("size"),
        shape=None if shape is None else tuple(shape),
        repr=entry.get("repr", ""),
    )
