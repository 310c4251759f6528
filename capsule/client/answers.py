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
    """One cell that ran: `line` is its number in the session number `session` of the history.

    `output`: its value as text, if it was asked for and there is one.
    """

    session: int
    line: int
    source: str
    output: str | None = None


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


@dataclass(frozen=True, slots=True)
class SavedName:
    """A name in a checkpoint: the type of its value, and the bytes that it took beyond those of the names before it."""

    name: str
    type: str
    size: int


@dataclass(frozen=True, slots=True)
class LeftOutName:
    """A name that could not be saved, and why.

    `where` leads to the object in its value that is to blame (`jobs['a'].lock`), `""` if that is not known.
    """

    name: str
    type: str
    reason: str
    where: str


@dataclass(frozen=True, slots=True)
class SaveReport:
    """What `save` did. `path` is the file, or `data` its content where no path was given; `size` is in bytes.

    `packages`: what has to be installed where it is restored, with versions. With `has_code` it also takes the same
    minor version of Python, because there are functions or classes of the session in it.
    """

    path: str | None
    size: int
    saved: list[SavedName]
    left_out: list[LeftOutName]
    packages: dict[str, str]
    has_code: bool
    data: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class RestoreReport:
    """What `restore` did: the names that it set, and which of them had a value before.

    `created` is when the checkpoint was made, in seconds since the epoch, and `left_out` what had not been saved then.
    `other_versions`: packages of which this session has another version, as (then, now).
    """

    restored: list[str]
    replaced: list[str]
    created: float
    left_out: list[LeftOutName]
    other_versions: dict[str, tuple[str, str]]


def history_entry(session: int, line: int, source: Any) -> HistoryEntry:
    """One entry of a `history_reply`."""
    text, output = source if isinstance(source, list) else (source, None)
    return HistoryEntry(session, line, text, output)


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
