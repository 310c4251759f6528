"""`capsule store check`: whether all in a store fits together. Nothing is repaired."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing, suppress
from typing import TYPE_CHECKING

from capsule_bridge.findings import CHECKS, Check, StoreFinding, finding, some
from capsule_bridge.sqlite import schema
from capsule_bridge.sqlite.damage import damage
from capsule_bridge.sqlite.files import has_size_of, is_whole, values_path
from capsule_bridge.sqlite.tools.opening import reading, sql
from capsule_protocol.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BEING_WRITTEN = 60.0
"""Seconds that a value may be a file without being named by a row: the node commits it next."""
_RESCUE = "Stop the node, keep a copy of all files, and take out with `capsule store export` what can be read."

_GONE = "Nothing of it can be read. Restore the store from a copy, or give the node another one."

_QUERIES: dict[str, Check] = {
    "logs": Check("gaps", "logs with gaps", _RESCUE),
    "events": Check("lost_events", "logs without a promise", _RESCUE),
    "children": Check("left_children", "promises that wait for nobody", "A node that starts again settles them."),
    "parents": Check(
        "lost_parents", "promises whose parent is gone", "Their own verdicts and logs are whole.", "warning"
    ),
    "tombstones": Check("twice", "promises that are forgotten too", _RESCUE),
}


def check(path: Path, *, thorough: bool = False) -> list[StoreFinding]:
    """One finding for each of `CHECKS`; `thorough` compares indexes with tables, and large values with what they were.

    Raises StoreError: `store_refused`, `store_unavailable`.
    """
    try:
        with reading(path) as (connection, file):
            return _check(connection, file, thorough=thorough)
    except StoreError as error:
        if error.code != "store_damaged":
            raise
        # Not even that can be read which says what kind of a file it is.
        return [finding(code, "error", f"it cannot be told: {error.message}", _GONE) for code in CHECKS]


def _check(connection: sqlite3.Connection, file: Path, *, thorough: bool) -> list[StoreFinding]:
    findings = [_database(connection, thorough=thorough), _schema(connection)]
    findings += [_ask(connection, code) for code in _QUERIES]
    return [*findings, *_values(connection, values_path(file), thorough=thorough)]


def _database(connection: sqlite3.Connection, *, thorough: bool) -> StoreFinding:
    found = damage(connection, "integrity_check" if thorough else "quick_check")
    return finding("database", "error", f"the file is damaged: {'; '.join(found)}" if found else "", _RESCUE)


def _schema(connection: sqlite3.Connection) -> StoreFinding:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as model:
        schema.migrate(model)
        expected = {row[:2]: row[2] for row in model.execute(sql("schema"))}
    try:
        found = {row[:2]: row[2] for row in connection.execute(sql("schema"))}
    except sqlite3.DatabaseError as error:
        return finding("schema", "error", f"it cannot be told: {error}", _RESCUE)
    changed = sorted(
        name for kind, name in expected.keys() | found if expected.get((kind, name)) != found.get((kind, name))
    )
    text = f"somebody has changed {some(changed)}" if changed else ""
    return finding("schema", "error", text, "Restore the store from a copy, or give the node another one.")


def _ask(connection: sqlite3.Connection, code: str) -> StoreFinding:
    one = _QUERIES[code]
    try:
        wrong = [str(row[0]) for row in connection.execute(sql(one.query))]
    except sqlite3.DatabaseError as error:  # a damaged file: what can be said of it shall be said
        return finding(code, "error", f"it cannot be told: {error}", _RESCUE)
    return finding(code, one.severity, f"{len(wrong)} {one.wrong}: {some(wrong)}" if wrong else "", one.hint)


def _values(connection: sqlite3.Connection, folder: Path, *, thorough: bool) -> Iterator[StoreFinding]:
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
            yield finding(code, "error", f"it cannot be told: {error}", _RESCUE)
        return
    changed = [name for name in named if name in there and _changed(folder / name, there[name], thorough=thorough)]
    wrong = {"are lost": missing, "are not what was written": changed}
    told = [
        f"{len(names)} large values {what}, of {some(str(named[name]) for name in names)}"
        for what, names in wrong.items()
        if names
    ]
    yield finding("values", "error", "; ".join(told), _RESCUE)
    oldest = time.time() - BEING_WRITTEN
    left = sorted(name for name, status in there.items() if name not in named and status.st_mtime < oldest)
    text = f"{len(left)} files belong to nothing: {some(left)}" if left else ""
    yield finding("files", "info", text, "A crash left them; the node removes them when it starts again.")


def _changed(file: Path, status: os.stat_result, *, thorough: bool) -> bool:
    """Whether the file of a value is not what its name says; one that has gone meanwhile is."""
    if not thorough:
        return not has_size_of(file.name, status.st_size)
    with suppress(FileNotFoundError):
        return not is_whole(file.name, file.read_bytes())
    return False


def _listed(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    """The files of a directory."""
    with suppress(FileNotFoundError), os.scandir(folder) as found:
        for file in found:
            with suppress(FileNotFoundError):
                yield file.name, file.stat()
