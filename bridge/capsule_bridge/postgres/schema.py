"""The SQL of the store, and the tables in the database: found, refused, made or brought to the newest version."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from capsule_bridge.sql import load_migrations, load_queries
from capsule_protocol.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asyncpg import Connection, Record

    from capsule_bridge.sql import Migration

MARKER = "capsule_schema"
"""The table that says which version the others have, and that they are Capsule's."""
NO_TABLES = -1


@cache
def queries() -> Mapping[str, str]:
    """The queries by name."""
    return load_queries(__package__)


@cache
def migrations() -> tuple[Migration, ...]:
    """All migrations, oldest first."""
    return load_migrations(__package__)


async def check(connection: Connection[Record], schema: str) -> int:
    """The version of the tables, or `NO_TABLES`.

    Raises StoreError, `store_refused`, if a newer version of Capsule made them, or something else than Capsule.
    """
    tables = {name for (name,) in await connection.fetch(queries()["tables"], schema)}
    if MARKER not in tables:
        if tables:
            text = f"the schema {schema!r} of the database has tables that are not Capsule's"
            raise StoreError("store_refused", text, hint="Name another database; this one was left as it is.")
        return NO_TABLES
    version: int = await connection.fetchval(queries()["schema_version"])
    if version > len(migrations()):
        raise StoreError(
            "store_refused",
            f"the store in the database has schema {version}, and this version of Capsule knows {len(migrations())}",
            hint="Update Capsule, or give this node a store of its own.",
        )
    return version


async def migrate(connection: Connection[Record], schema: str) -> None:
    """Bring the tables to the newest version, each step in one transaction; of nodes that start at once one does it."""
    version = await check(connection, schema)
    while version < len(migrations()):
        async with connection.transaction():
            await connection.execute(queries()["lock_schema"], schema)
            version = await check(connection, schema)  # another node may have been here before
            if version == NO_TABLES:
                if not await connection.fetchval(queries()["schema_exists"], schema):
                    await connection.execute(f"CREATE SCHEMA {schema}")
                await connection.execute(queries()["create_marker"])
                version = 0
            for step in migrations()[version : version + 1]:
                await connection.execute(step.script)
                await connection.execute(queries()["mark_version"], step.version)
                version = step.version
