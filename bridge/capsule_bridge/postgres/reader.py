"""The connections that read what is committed, so that long logs do not hold up the writer; leases too."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from capsule_bridge import rules
from capsule_bridge.postgres.connect import CLOSE_SECONDS, CONNECT_SECONDS, FAILURES
from capsule_bridge.postgres.held import Row, row_of
from capsule_bridge.postgres.operations import missing
from capsule_bridge.postgres.schema import queries
from capsule_bridge.postgres.writer import OF_A_VALUE, unfit
from capsule_bridge.records import Lease, Log, LoggedEvent
from capsule_bridge.store import READ_BYTES
from capsule_protocol.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asyncpg import Pool, Record
    from asyncpg.pool import PoolConnectionProxy

    from capsule_bridge.records import Promise


class Reader:
    """Each method is one statement, or sees no more than one would."""

    def __init__(self, pool: Pool[Record]) -> None:
        self._pool = pool

    async def get(self, id_: str) -> Promise:
        """The promise as it is written down."""
        async with self._connection() as connection:
            return (await _find(connection, id_)).promise

    async def read(self, id_: str, after: int, limit: int) -> Log:
        """As `PromiseStore.read`."""
        async with self._connection() as connection:
            rows = await connection.fetch(queries()["log_behind"], id_, after, limit, READ_BYTES)
        if not rows or rows[0]["buried_until"] is not None:
            raise missing(id_, buried=bool(rows))
        trimmed, _, last, *_ = rows[0]
        events = (LoggedEvent(number, data) for _, _, _, number, data in rows if number is not None)
        return Log(trimmed + 1, trimmed if last is None else last, rules.part(events, READ_BYTES))

    async def pending(self, now: int, session: str | None, after: str, limit: int) -> list[Promise]:
        """As `PromiseStore.pending`."""
        async with self._connection() as connection:
            number = (await _find(connection, after)).n if after else 0
            rows = await connection.fetch(queries()["pending_promises"], number, now, session, limit)
        return [row_of(columns).promise for columns in rows]

    async def acquire(self, name: str, owner: str, seconds: float) -> Lease | None:
        """As `Leases.acquire`."""
        async with self._connection() as connection:
            length = timedelta(seconds=seconds)
            version = await connection.fetchval(queries()["acquire_lease"], name, owner, length)
        return None if version is None else Lease(name, owner, version)

    async def renew(self, lease: Lease, seconds: float) -> bool:
        """As `Leases.renew`."""
        async with self._connection() as connection:
            length = timedelta(seconds=seconds)
            found = await connection.fetchval(queries()["renew_lease"], lease.name, lease.version, length)
        return found is not None

    async def release(self, lease: Lease) -> None:
        """As `Leases.release`."""
        async with self._connection() as connection:
            await connection.execute(queries()["release_lease"], lease.name, lease.version)

    async def lapsed(self, prefix: str) -> list[str]:
        """As `Leases.lapsed`."""
        async with self._connection() as connection:
            return [name for (name,) in await connection.fetch(queries()["lapsed_leases"], prefix)]

    async def stop(self) -> None:
        """Let go of the connections; nobody reads any more."""
        try:
            await asyncio.wait_for(self._pool.close(), CLOSE_SECONDS)
        except FAILURES:
            self._pool.terminate()

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[PoolConnectionProxy[Record]]:
        try:
            async with self._pool.acquire(timeout=CONNECT_SECONDS) as connection:
                try:
                    yield connection
                except TimeoutError:
                    connection.terminate()  # or the next one would wait for it as long
                    raise
        except OF_A_VALUE as error:
            raise unfit(error) from error
        except FAILURES as error:
            raise StoreError("store_unavailable", f"the store cannot be read: {error or repr(error)}") from error


async def _find(connection: PoolConnectionProxy[Record], id_: str) -> Row:
    columns = await connection.fetchrow(queries()["promise_by_id"], id_)
    row = None if columns is None else row_of(columns)
    if row is None or row.buried_until is not None:
        raise missing(id_, buried=row is not None)
    return row
