"""`capsule store info` of a database."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

from capsule_bridge.places import shown
from capsule_bridge.postgres.tools.opening import PATIENCE, sql, viewing
from capsule_bridge.states import PENDING, State

if TYPE_CHECKING:
    from collections.abc import Mapping

NODES = "node:"
"""How the names of the leases of nodes begin."""


@dataclass(frozen=True, slots=True)
class DatabaseInfo:
    """A store at one moment. `nodes`: those that use it, and whether their lease lasts; `size` of its tables in bytes.

    `oldest_pending`: milliseconds since the oldest promise without a verdict was made; None without any.
    """

    path: str
    schema: int
    postgresql: str
    nodes: Mapping[str, bool]
    promises: Mapping[State, int]
    oldest_pending: int | None
    events: int
    tombstones: int
    size: int

    @property
    def pending(self) -> int:
        """Promises that have no verdict."""
        return self.promises[PENDING]


async def info(url: str, *, now: int, schema: str = "capsule") -> DatabaseInfo:
    """Look at the store. Raises StoreError: `store_refused`, `store_unavailable`."""
    async with viewing(url, schema) as (connection, version):
        states: dict[str, int] = {row[0]: row[1] for row in await connection.fetch(sql("states"), timeout=PATIENCE)}
        oldest = await connection.fetchval(sql("oldest_pending"), timeout=PATIENCE)
        return DatabaseInfo(
            path=shown(url),
            schema=version,
            postgresql=str(await connection.fetchval("SHOW server_version")),
            nodes={row[0]: row[1] for row in await connection.fetch(sql("nodes"), NODES)},
            promises={state: states.get(state, 0) for state in get_args(State)},
            oldest_pending=None if oldest is None else max(0, now - oldest),
            events=await connection.fetchval(sql("count_events"), timeout=PATIENCE),
            tombstones=await connection.fetchval(sql("count_tombstones"), timeout=PATIENCE),
            size=await connection.fetchval(sql("size"), schema) or 0,
        )
