"""What the node says of one run, and the descriptors that come with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple


class RunDescriptors(NamedTuple):
    """In the order in which they come; after them one for each root.

    `lease` keeps the run alive. `stdout_read` and `stderr_read` are the other ends of the program's outputs: the keeper
    empties them when the node has read as much as it wants.
    """

    lease: int
    stdin: int
    stdout: int
    stderr: int
    stdout_read: int
    stderr_read: int
    program: int


@dataclass(frozen=True, slots=True)
class Root:
    """A directory that the program may see, by descriptor."""

    descriptor: int
    path: str
    writable: bool


@dataclass(frozen=True, slots=True)
class Run:
    """One run, as a keeper needs it."""

    argv: list[str]
    env: dict[str, str]
    cwd: list[str | int]
    """The number of a root, then the folders on the way below it; empty: the run's own directory."""
    real: str
    """Where the program is, without links on the way."""
    script: bool
    """The program is one for an interpreter, which opens it by its descriptor."""
    limits: dict[str, int | None]
    cpus: float | None
    level: str
    network: bool
    uid: int | None
    readable: list[str]
    directory: str
    """Its own: the home of the program, and its files while it runs."""
    given: RunDescriptors
    roots: list[Root]


def parsed(message: dict[str, Any], descriptors: list[int], directory: str) -> Run:
    """The run of a message. Raises ValueError or LookupError for a message that no node of this version sends."""
    count = len(RunDescriptors._fields)
    given = RunDescriptors(*descriptors[:count])
    roots = [
        Root(descriptor, root["path"], root["writable"])
        for descriptor, root in zip(descriptors[count:], message["roots"], strict=True)
    ]
    names = ("argv", "env", "cwd", "real", "script", "limits", "cpus", "level", "network", "uid", "readable")
    return Run(**{name: message[name] for name in names}, directory=directory, given=given, roots=roots)
