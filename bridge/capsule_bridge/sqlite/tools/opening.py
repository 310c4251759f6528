"""A store opened for looking only: whether or not a node uses it, nothing of it changes."""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING

from capsule_bridge.sqlite import schema
from capsule_bridge.sqlite.connect import open_reader, refuse_foreign
from capsule_bridge.sqlite.damage import store_error
from capsule_bridge.sqlite.files import real_path
from capsule_protocol.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path


@contextmanager
def reading(path: Path) -> Iterator[tuple[sqlite3.Connection, Path]]:
    """A connection that cannot write, and the file that the path leads to.

    Raises StoreError: `store_refused` if there is no store of this version, `store_unavailable` or `store_damaged`
    if it cannot be read, in the block too.
    """
    path = store_file(path)
    try:
        refuse_foreign(path)
        connection = open_reader(path)
    except sqlite3.Error as error:
        raise store_error(error, f"the store {path} cannot be read") from error
    try:
        # So that a file that was cut short is read as far as it goes; nothing can be written over this connection.
        connection.execute("PRAGMA writable_schema = ON")
        schema.check(connection, path)
        _check_version(connection, path)
        yield connection, path
    except (sqlite3.Error, OSError) as error:
        raise store_error(error, f"the store {path} cannot be read") from error
    finally:
        connection.close()


def store_file(path: Path) -> Path:
    """The file that the path leads to. Raises StoreError, `store_refused`, if there cannot be a store."""
    if path.is_file():
        return real_path(path)
    what = f"{path} is not a file" if path.exists() else f"there is no store {path}"
    raise StoreError("store_refused", what, hint="Name the file of a store, as the node's configuration does.")


def sql(name: str) -> str:
    """The query of this name."""
    return _queries()[name]


def _queries() -> Mapping[str, str]:
    return schema.queries_of(__package__)


def _check_version(connection: sqlite3.Connection, path: Path) -> None:
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    newest = len(schema.migrations())
    if version < newest:
        text = f"the store {path} has schema {version}, and this version of Capsule reads {newest}"
        hint = "A node that opens it brings it to the newest, and so does `capsule store compact`."
        raise StoreError("store_refused", text, hint=hint)
