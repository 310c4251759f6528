"""A view of all of a store at one moment, which hinders nobody who uses it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import cache
from typing import TYPE_CHECKING

from capsule_bridge.places import shown
from capsule_bridge.postgres.connect import FAILURES, Database, let_go
from capsule_bridge.postgres.schema import NO_TABLES, check
from capsule_bridge.sql import load_queries
from capsule_protocol.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asyncpg import Connection, Record

PATIENCE = 3600.0
"""Seconds that a look at all rows may take."""


@cache
def sql(name: str) -> str:
    """A query by its name."""
    return load_queries(__package__)[name]


@asynccontextmanager
async def viewing(url: str, schema: str) -> AsyncIterator[tuple[Connection[Record], int]]:
    """A connection that sees the store as it is now, and the version of its tables.

    Raises StoreError: `store_refused`, also if there is no store; `store_unavailable`.
    """
    database = Database(url, schema)
    try:
        connection = await database.look()
        try:
            version = await check(connection, schema)
            if version == NO_TABLES:
                text = f"there is no store in the schema {schema!r} at {shown(url)}"
                raise StoreError("store_refused", text, hint="Name another database, or start a node with this one.")
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                yield connection, version
        finally:
            await let_go(connection)
    except FAILURES as error:
        text = f"the store cannot be read: {error or repr(error)}"
        raise StoreError("store_unavailable", text) from error
