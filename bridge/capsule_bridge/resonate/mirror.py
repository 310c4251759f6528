"""The local half of the store: logs, keys and fences, and a copy of every verdict that the server gave."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from capsule_bridge.sqlite import SqliteStore, operations
from capsule_protocol.errors import LocalProtocolError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from capsule_bridge.records import NewPromise, Promise, Retention, Settlement
    from capsule_bridge.resonate.wire import Verdict
    from capsule_bridge.sqlite.rows import Rows

AT_NO_TIME = -(2**62)
"""A time at which nothing is due: the server has said so, and it is not for the mirror to know better."""


class Mirror(SqliteStore):
    """A `SqliteStore` that can be told what was decided elsewhere."""

    async def requested(self, new: NewPromise) -> Promise | None:
        """What the same request has made before. Raises as `create`."""

        def ask(rows: Rows) -> Promise | None:
            row = operations.requested(rows, new)
            return row and row.promise

        return await self._read(ask)

    async def look(self, id_: str) -> Promise:
        """The promise as it was written down. Raises SessionError: `promise_unknown`, `promise_expired`."""
        return await self._read(lambda rows: operations.find(rows, id_).promise)

    async def parent(self, id_: str) -> Promise | None:
        """The promise that is to have a child, if there is one."""

        def ask(rows: Rows) -> Promise | None:
            row = rows.promise("promise_by_id", id_)
            return row and row.promise

        return await self._read(ask)

    async def check(self, settlements: Sequence[Settlement], now: int) -> list[Promise]:
        """Their promises, as they were written down. Raises what `settle` would, and does nothing."""
        return await self._read(lambda rows: operations.check_settlements(rows, settlements, now))

    async def family(self, ids: Sequence[str]) -> list[Promise]:
        """All pending descendants, parents before their children."""
        return await self._read(lambda rows: _family(rows, ids))

    async def due(self, now: int, limit: int) -> list[Promise]:
        """What should have timed out, oldest first."""
        return await self._read(lambda rows: [row.promise for row in rows.promises("due_promises", (now, limit))])

    async def forget(self, now: int, retention: Retention, limit: int) -> tuple[str, ...]:
        """Let go of what has been kept long enough."""
        return await self._write(lambda rows: operations.forget(rows, now, retention, limit))

    async def conclude(self, verdicts: Sequence[Verdict]) -> tuple[dict[str, Promise], list[Promise]]:
        """Write verdicts down. Answers the promises, and those of their descendants that were canceled with them."""
        size = sum(len(each.value) + sum(map(len, each.log)) for each in verdicts)
        return await self._write(lambda rows: _conclude(rows, verdicts), size)


def _family(rows: Rows, ids: Sequence[str]) -> list[Promise]:
    found: list[Promise] = []
    parents = list(ids)
    while parents:
        children = [row.promise for row in rows.promises("pending_children", (parents.pop(0),))]
        found += children
        parents += [child.id for child in children]
    return found


def _conclude(rows: Rows, verdicts: Sequence[Verdict]) -> tuple[dict[str, Promise], list[Promise]]:
    given = {each.id for each in verdicts}
    canceled = [child for child in _family(rows, [each.id for each in verdicts]) if child.id not in given]
    promises = {}
    for each in verdicts:
        row = operations.find(rows, each.id)
        promise = row.promise
        if promise.pending:
            if each.log:
                with suppress(LocalProtocolError):  # a log that does not fit any more is no reason to refuse a verdict
                    operations.append(rows, each.id, each.log, each.after, None)
            promise = promise._replace(state=each.state, value=each.value, settled_at=each.settled_at)
            operations.keep(rows, row, promise)
        promises[each.id] = promise
    return promises, canceled
