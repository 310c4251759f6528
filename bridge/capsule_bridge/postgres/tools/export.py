"""`capsule store export` of a database: all of a store as it was at one moment, as objects that say what they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from capsule_bridge.places import shown
from capsule_bridge.postgres.tools.opening import sql, viewing
from capsule_bridge.telling import FORMAT, decoded, plain

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from asyncpg import Connection
    from asyncpg import Record as Row

    from capsule_bridge.telling import Record

_AT_ONCE = 50
"""Rows of which the database sends the next ones while those before are written."""


async def export(url: str, *, now: int, decode: bool = False, schema: str = "capsule") -> AsyncIterator[Record]:
    """The records, as those of a store in a file. Raises StoreError: `store_refused`, `store_unavailable`."""
    told = {"promise": 0, "event": 0, "tombstone": 0}
    show = decoded if decode else plain
    async with viewing(url, schema) as (connection, version):
        yield {"record": "store", "format": FORMAT, "schema": version, "path": shown(url), "at": now}
        async for row in connection.cursor(sql("all_promises"), prefetch=_AT_ONCE):
            number, promise = row["n"], _shown(row, show)
            del promise["n"]
            told["promise"] += 1
            yield {"record": "promise"} | promise
            async for event in _events(connection, number, show):
                told["event"] += 1
                yield {"record": "event", "promise": promise["id"]} | event
        async for row in connection.cursor(sql("all_tombstones"), prefetch=_AT_ONCE):
            told["tombstone"] += 1
            yield {"record": "tombstone"} | dict(row)
    # Without this line it is not all.
    yield {"record": "end", "promises": told["promise"], "events": told["event"], "tombstones": told["tombstone"]}


async def _events(connection: Connection[Row], n: int, show: Callable[[bytes], Record]) -> AsyncIterator[Record]:
    async for row in connection.cursor(sql("all_events"), n, prefetch=_AT_ONCE):
        yield _shown(row, show)


def _shown(row: Row, show: Callable[[bytes], Record]) -> dict[str, Any]:
    record = dict(row)
    for name in record.keys() & {"param", "value", "data"}:
        record[name] = show(record[name])
    if "fingerprint" in record:
        record["fingerprint"] = plain(record["fingerprint"])
    return record
