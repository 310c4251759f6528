"""The SQL of the store: named queries, and numbered migrations that are applied in order."""

from __future__ import annotations

import sqlite3
from functools import cache
from typing import TYPE_CHECKING

from capsule_bridge.sql import load_migrations, load_queries
from capsule_protocol.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from capsule_bridge.sql import Migration

APPLICATION = 0x43617073
"""SQLite's mark of a file's owner: "Caps"."""


def queries() -> Mapping[str, str]:
    """The queries of the store by name."""
    return queries_of(__package__)


@cache
def queries_of(package: str) -> Mapping[str, str]:
    """The queries in the file `queries.sql` of a package, by name."""
    return load_queries(package)


@cache
def migrations() -> tuple[Migration, ...]:
    """All migrations, oldest first."""
    return load_migrations(__package__)


def check(connection: sqlite3.Connection, path: Path) -> None:
    """Raises StoreError, `store_refused`, if a newer version made the file, or something else than Capsule."""
    try:
        version, owner = _number(connection, "user_version"), _number(connection, "application_id")
        empty = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError) or error.sqlite_errorcode != sqlite3.SQLITE_NOTADB:
            raise
        raise _foreign(path) from error
    if owner != APPLICATION and not (empty and version == owner == 0):
        raise _foreign(path)
    if version > len(migrations()):
        raise StoreError(
            "store_refused",
            f"the store {path} has schema {version}, and this version of Capsule knows {len(migrations())}",
            hint="Update Capsule, or give this node a store of its own.",
        )


def migrate(connection: sqlite3.Connection) -> None:
    """Bring the database to the newest version, each step in one transaction."""
    for step in migrations()[_number(connection, "user_version") :]:
        marks = f"PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {step.version};"
        try:
            connection.executescript(f"BEGIN IMMEDIATE; {step.script}; {marks} COMMIT;")
        except sqlite3.Error:
            if connection.in_transaction:
                connection.rollback()
            raise


def _foreign(path: Path) -> StoreError:
    text = f"{path} is not a store of Capsule"
    return StoreError("store_refused", text, hint="Name another file; this one was left as it is.")


def _number(connection: sqlite3.Connection, pragma: str) -> int:
    return int(connection.execute(f"PRAGMA {pragma}").fetchone()[0])
