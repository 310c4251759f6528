"""In which line of a TOML file a value stands, which tomllib does not tell."""

from __future__ import annotations

import tomllib
from typing import Any

_ENDS = ('"""', "'''", "]", "}")
"""What the last line of a value that has several lines has in it."""


def lines(text: str) -> dict[tuple[str, ...], int]:
    """The line (from 1) in which each table and each value begins, by path. The text must be valid TOML.

    A statement ends with the first line up to which it can be parsed alone. The tables of an array are numbered from
    "0" on.
    """
    found: dict[tuple[str, ...], int] = {}
    arrays: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()
    held, start = "", 0
    for number, line in enumerate(text.split("\n"), 1):
        if not held:
            start = number
        first = not held
        held += line + "\n"
        statement = _parse(held) if first or any(end in line for end in _ENDS) else None
        if statement is None:
            continue
        if held.lstrip().startswith("["):
            table = _chain(statement, arrays)
            found.setdefault(table, start)
        else:
            _record(found, table, statement, start)
        held = ""
    return found


def _parse(text: str) -> dict[str, Any] | None:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return None


def _chain(header: dict[str, Any], arrays: dict[tuple[str, ...], int]) -> tuple[str, ...]:
    """The path that the header of a table names; `arrays` has the number of the newest table of each array."""
    path: tuple[str, ...] = ()
    inner: Any = header
    while isinstance(inner, dict) and inner:
        ((name, inner),) = inner.items()
        path = (*path, name)
        if isinstance(inner, list):
            arrays[path] = arrays.get(path, -1) + 1
        if path in arrays:
            path = (*path, str(arrays[path]))
    return path


def _record(found: dict[tuple[str, ...], int], path: tuple[str, ...], value: dict[str, Any], line: int) -> None:
    for name, inner in value.items():
        here = (*path, name)
        found.setdefault(here, line)
        if isinstance(inner, dict):
            _record(found, here, inner, line)
