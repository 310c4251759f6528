"""Connections to the database, each looked at before it is used."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

import asyncpg

from capsule_bridge.places import shown
from capsule_bridge.postgres.schema import check, migrate, queries
from capsule_protocol.errors import ArgumentError, StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncpg import Connection, Pool, Record

CONNECT_SECONDS = 10.0
CLOSE_SECONDS = 5.0
COMMAND_SECONDS = 30.0
"""A statement that takes longer, and be it for want of a network, fails with its connection."""
LOCK_SECONDS = 10.0
"""How long to wait for a row that a transaction of another node holds."""
IDLE_SECONDS = 20.0
"""After so long without a word in a transaction the database takes its node for lost and lets go of its rows."""
READERS = 4
"""Connections for reading, of each store."""
OLDEST_SERVER = 13_00_00
SCHEMA_NAME = re.compile(r"[a-z_][a-z0-9_]{0,39}")

FAILURES = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
"""What a database that is not there, or not well, shows as. (A time-out is an OSError.)"""
_ABSENT = "Start the database, or correct the URL, and start again."
_REFUSALS = (
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidPasswordError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.InsufficientPrivilegeError,
)

# Every query has its index. The planner does not know that before the tables have grown and been analyzed: it would
# choose to read a table from end to end while that is small, and keep to it. To compile such queries is not worth it.
_PLANS = {
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "jit": "off",
}


class Database:
    """Where the store is: the URL of a database, and the name of the schema in it that holds the tables."""

    def __init__(self, url: str, schema: str) -> None:
        if not SCHEMA_NAME.fullmatch(schema):
            raise ArgumentError("schema", f"{schema!r} is no name for it", allowed="a-z, 0-9 and _, at most 40")
        self.schema = schema
        self.channel = f"capsule:{schema}"
        self._url = url
        self._settings = {
            "search_path": schema,
            "application_name": f"capsule:{schema}",
            **_PLANS,
            "lock_timeout": _milliseconds(LOCK_SECONDS),
            "idle_in_transaction_session_timeout": _milliseconds(IDLE_SECONDS),
        }

    async def prepare(self) -> None:
        """See that the tables are there, in the newest version. Raises StoreError if they cannot be had."""
        with self._opening():
            connection = await self._open()
            try:
                await self._look(connection)
                await migrate(connection, self.schema)
            finally:
                await let_go(connection)

    @contextmanager
    def _opening(self) -> Iterator[None]:
        """What the database says is told as ours."""
        try:
            yield
        except _REFUSALS as error:
            hint = "Correct the URL, or have the database's owner grant what is missing."
            raise StoreError("store_refused", f"the database does not let us in: {error}", hint=hint) from error
        except FAILURES as error:
            text = f"the database cannot be opened: {error or repr(error)}"
            raise StoreError("store_unavailable", text, hint=_ABSENT) from error
        except ValueError:
            # What could not be read may be a part of the password, so it is not told.
            text = f"the URL of the database cannot be understood: {shown(self._url)}"
            raise StoreError("store_unavailable", text, hint=_ABSENT) from None

    async def look(self) -> Connection[Record]:
        """A connection for whoever only looks on; nothing is made, and what the tables are is not looked at.

        Raises StoreError: `store_refused`, `store_unavailable`.
        """
        with self._opening():
            return await self._open()

    async def connect(self) -> Connection[Record]:
        """A connection that is as it was found at the start."""
        connection = await self._open()
        try:
            await self._look(connection)
            await check(connection, self.schema)  # a newer version may have come meanwhile
        except BaseException:
            connection.terminate()
            raise
        return connection

    async def readers(self) -> Pool[Record]:
        """Connections for reading; none is open yet."""
        return await asyncpg.create_pool(
            self._url,
            min_size=0,
            max_size=READERS,
            reset=_nothing,
            timeout=CONNECT_SECONDS,
            command_timeout=COMMAND_SECONDS,
            server_settings=self._settings,
        )

    async def _open(self) -> Connection[Record]:
        return await asyncpg.connect(
            self._url,
            timeout=CONNECT_SECONDS,
            command_timeout=COMMAND_SECONDS,
            server_settings=self._settings,
        )

    async def _look(self, connection: Connection[Record]) -> None:
        """Raises StoreError if the server cannot keep what we promise."""
        row = await connection.fetchrow(queries()["server"])
        assert row is not None
        number, version, fsync, synchronous, encoding, standby = row
        wrong = None
        if number < OLDEST_SERVER:
            wrong = f"it is PostgreSQL {version}, and 13 is the oldest that will do"
        elif fsync != "on":
            wrong = "it does not sync what it commits (fsync = off)"
        elif encoding != "UTF8":
            wrong = f"its text is {encoding} and not UTF8"
        elif standby:
            wrong = "it is a standby, and cannot be written to"
        if wrong:
            hint = "Name another database."
            raise StoreError("store_refused", f"the database cannot be used: {wrong}", hint=hint)
        if synchronous == "off":
            await connection.execute(queries()["commit_synchronously"])


async def let_go(connection: Connection[Record]) -> None:
    """Take leave of the database in good order, or else without."""
    try:
        await connection.close(timeout=CLOSE_SECONDS)
    except FAILURES:
        connection.terminate()


async def _nothing(_connection: object) -> None:
    """Readers leave nothing behind that would have to be undone."""


def _milliseconds(seconds: float) -> str:
    return str(int(seconds * 1000))
