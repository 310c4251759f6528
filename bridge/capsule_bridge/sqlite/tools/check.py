"""`capsule store check`: whether all in a store fits together. Nothing is repaired."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from capsule_bridge.sqlite import schema
from capsule_bridge.sqlite.damage import damage
from capsule_bridge.sqlite.files import values_path
from capsule_bridge.sqlite.tools.opening import reading, sql

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

EXAMPLES = 5
"""Of many that are wrong in the same way so many are named."""
BEING_WRITTEN = 60.0
"""Seconds that a value may be a file without being named by a row: the node commits it next."""
_RESCUE = "Stop the node, keep a copy of all files, and take out with `capsule store export` what can be read."

Severity = Literal["ok", "info", "warning", "error"]


@dataclass(frozen=True, slots=True)
class StoreFinding:
    """The outcome of one check. `error`: something is lost or wrong; `warning`: it may be; `info`: know it."""

    code: str
    severity: Severity
    message: str
    hint: str = ""


class Check(NamedTuple):
    """A query that finds what is wrong."""

    query: str
    wrong: str
    hint: str = _RESCUE
    severity: Severity = "error"


CHECKS: dict[str, str] = {
    "database": "the pages of the database are whole",
    "schema": "tables and indexes are those of this version",
    "logs": "the events of each promise are numbered without a gap",
    "events": "each event belongs to a promise",
    "children": "no promise waits whose parent has its verdict",
    "parents": "each parent is there, or is remembered",
    "tombstones": "nothing is both there and forgotten",
    "values": "each large value is in its file",
    "files": "each file of a large value belongs to something",
}
"""Every code, and what is so when it is `ok`."""

_QUERIES: dict[str, Check] = {
    "logs": Check("gaps", "logs with gaps"),
    "events": Check("lost_events", "logs without a promise"),
    "children": Check("left_children", "promises that wait for nobody", "A node that starts again settles them."),
    "parents": Check(
        "lost_parents", "promises whose parent is gone", "Their own verdicts and logs are whole.", "warning"
    ),
    "tombstones": Check("twice", "promises that are forgotten too"),
}


def check(path: Path, *, thorough: bool = False) -> list[StoreFinding]:
    """One finding for each of `CHECKS`; `thorough` compares indexes with their tables, which takes longer.

    Raises StoreError: `store_refused`, `store_unavailable`.
    """
    with reading(path) as connection:
        findings = [_database(connection, thorough=thorough), _schema(connection)]
        findings += [_ask(connection, code) for code in _QUERIES]
        return [*findings, *_values(connection, values_path(path))]


def _database(connection: sqlite3.Connection, *, thorough: bool) -> StoreFinding:
    found = damage(connection, "integrity_check" if thorough else "quick_check")
    return _finding("database", "error", f"the file is damaged: {'; '.join(found)}" if found else "", _RESCUE)


def _schema(connection: sqlite3.Connection) -> StoreFinding:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as model:
        schema.migrate(model)
        expected = {row[:2]: row[2] for row in model.execute(sql("schema"))}
    found = {row[:2]: row[2] for row in connection.execute(sql("schema"))}
    changed = sorted(
        name for kind, name in expected.keys() | found if expected.get((kind, name)) != found.get((kind, name))
    )
    text = f"somebody has changed {_some(changed)}" if changed else ""
    return _finding("schema", "error", text, "Restore the store from a copy, or give the node another one.")


def _ask(connection: sqlite3.Connection, code: str) -> StoreFinding:
    one = _QUERIES[code]
    try:
        wrong = [str(row[0]) for row in connection.execute(sql(one.query))]
    except sqlite3.DatabaseError as error:  # a damaged file: what can be said of it shall be said
        return _finding(code, "error", f"it cannot be told: {error}", _RESCUE)
    return _finding(code, one.severity, f"{len(wrong)} {one.wrong}: {_some(wrong)}" if wrong else "", one.hint)


def _values(connection: sqlite3.Connection, folder: Path) -> Iterator[StoreFinding]:
    """Files come before their rows, and go after them: so files are listed first, and what is missed is asked twice."""
    there = dict(_listed(folder))
    try:
        named = dict(connection.execute(sql("files")).fetchall())
        missing = [name for name in named if name not in there and not (folder / name).exists()]
        if missing:
            again = dict(connection.execute(sql("files")).fetchall())
            missing = [name for name in missing if name in again and not (folder / name).exists()]
    except sqlite3.DatabaseError as error:
        for code in ("values", "files"):
            yield _finding(code, "error", f"it cannot be told: {error}", _RESCUE)
        return
    owners = [str(named[name]) for name in missing]
    yield _finding(
        "values", "error", f"{len(missing)} large values are lost, of {_some(owners)}" if missing else "", _RESCUE
    )
    oldest = time.time() - BEING_WRITTEN
    left = sorted(name for name, changed in there.items() if name not in named and changed < oldest)
    text = f"{len(left)} files belong to nothing: {_some(left)}" if left else ""
    yield _finding("files", "info", text, "A crash left them; the node removes them when it starts again.")


def _listed(folder: Path) -> Iterator[tuple[str, float]]:
    """The files of a directory, and when they were changed."""
    with suppress(FileNotFoundError), os.scandir(folder) as found:
        for file in found:
            with suppress(FileNotFoundError):
                yield file.name, file.stat().st_mtime


def _finding(code: str, severity: Severity, wrong: str, hint: str) -> StoreFinding:
    return StoreFinding(code, severity, wrong, hint) if wrong else StoreFinding(code, "ok", CHECKS[code])


def _some(names: Iterable[str]) -> str:
    named = list(names)
    more = f", and {len(named) - EXAMPLES} more" if len(named) > EXAMPLES else ""
    return ", ".join(named[:EXAMPLES]) + more
