"""One transaction: lock what the operations need, let them decide, write down what has changed, all at once.

Each step is one statement for all operations together, so a batch of hundreds costs as many round trips as one.
"""

from __future__ import annotations

import json
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from capsule_bridge import rules
from capsule_bridge.postgres.held import Held, row_of
from capsule_bridge.postgres.jobs import Sweep, Wants
from capsule_bridge.postgres.operations import look
from capsule_bridge.postgres.schema import queries
from capsule_bridge.records import Expired, Promise
from capsule_bridge.rules import Tail
from capsule_protocol.errors import CapsuleError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from asyncpg import Connection, Record

    from capsule_bridge.postgres.jobs import Job

PAYLOAD_BYTES = 7_900
"""A notification is refused from 8,000 bytes on; there may be several in a transaction, for the price of one."""
_ALL = attrgetter(*Promise._fields)
_CHANGING = attrgetter("state", "value", "epoch", "version", "started_at", "settled_at")


class OvertakenError(Exception):
    """Another node made one of the promises a moment before; begun again, the transaction will see it."""


async def run(connection: Connection[Record], channel: str, jobs: Sequence[Job]) -> list[str]:
    """Do the jobs in the open transaction, without the commit; answers the ids that were told to other nodes."""
    held = Held()
    (first, *_) = jobs
    if isinstance(first.wants, Sweep):
        first.call.answer = await _expire(connection, channel, held, first.wants)
    else:
        await _lock(connection, held, [job.wants for job in jobs if isinstance(job.wants, Wants)])
        for job in jobs:
            assert job.run is not None
            try:
                job.call.answer, job.call.error = job.run(held), None
            except CapsuleError as refusal:
                job.call.answer, job.call.error = None, refusal
        await _write(connection, channel, held)
    return held.told()


def payloads(ids: Iterable[str]) -> list[str]:
    """The ids as notifications; an empty one stands for an id that is too long for any."""
    parts: list[list[str]] = []
    room = 0
    for id_ in ids:
        size = len(json.dumps(id_)) + 2
        if size > PAYLOAD_BYTES - 2:
            parts.append([])
            room = 0
            continue
        if size > room:
            parts.append([])
            room = PAYLOAD_BYTES - 2
        parts[-1].append(id_)
        room -= size
    return [json.dumps(part) for part in parts]


async def _lock(connection: Connection[Record], held: Held, wants: Sequence[Wants]) -> None:
    """Hold all rows that these want, locked until the end of the transaction."""
    ids = list({id_ for want in wants for id_ in (*want.ids, *want.also)})
    keys = list({want.key for want in wants if want.key is not None})
    if keys:
        found = await connection.fetch(queries()["lock_requests"], ids, *_columns(keys, 3))
    else:
        found = await connection.fetch(queries()["lock_promises"], ids)
    for columns in found:
        held.take(row_of(columns))
    await _lock_below(connection, held, _settling(held, wants) & held.parents)
    await _load_logs(connection, held, wants)


def _settling(held: Held, wants: Iterable[Wants]) -> set[str]:
    """Which of the promises that are held may be settled."""
    found = set()
    for want in wants:
        for id_ in (*want.ids, *([held.keys.get(want.key)] if want.key else ())):
            promise = held.promises.get(id_ or "")
            due = promise and want.now is not None and rules.is_due(promise, want.now)
            if promise and promise.pending and (want.settles or due):
                found.add(promise.id)
    return found


async def _lock_below(connection: Connection[Record], held: Held, parents: Iterable[str]) -> None:
    """Hold all that is pending below these. While we waited for a row its owner may have got children: look again."""
    above = list(parents)
    while above:
        rows = [row_of(columns) for columns in await connection.fetch(queries()["lock_descendants"], above)]
        above = [row.promise.id for row in rows if held.take(row) and row.promise.pending]


async def _load_logs(connection: Connection[Record], held: Held, wants: Iterable[Wants]) -> None:
    """The ends of the logs that are wanted, and of repeated events those that are there.

    Not before the rows are locked: what another node has logged until then has to be seen.
    """
    parts = [part for want in wants for part in want.logs if part[0] in held.tails]
    names = {held.numbers[id_]: id_ for id_, *_ in parts}
    if not names:
        return
    for n, last in await connection.fetch(queries()["ends_of_logs"], list(names)):
        trimmed = held.tails[names[n]].trimmed
        held.tails[names[n]] = Tail(trimmed, trimmed if last is None else last)
    again = [(held.numbers[id_], after, after + count) for id_, after, count in parts if after < held.tails[id_].last]
    again = [each for each in again if each[1] < each[2]]
    if again:
        for n, number, data in await connection.fetch(queries()["parts_of_logs"], *_columns(again, 3)):
            held.events.setdefault(names[n], {})[number] = data


async def _expire(connection: Connection[Record], channel: str, held: Held, sweep: Sweep) -> Expired:
    """As `PromiseStore.expire`. What another node is at is left to it."""
    rows = [row_of(columns) for columns in await connection.fetch(queries()["lock_due"], sweep.now, sweep.limit)]
    due = [row.promise.id for row in rows if held.take(row)]
    await _lock_below(connection, held, held.parents.intersection(due))
    for id_ in due:
        look(held, id_, sweep.now)  # it may have been canceled with its parent a moment ago
    await _write(connection, channel, held)
    since, until, limit = sweep.kept_since, sweep.remembered_until, sweep.limit
    old = await connection.fetch(queries()["bury_promises"], since, limit, until)
    if old:
        await connection.execute(queries()["delete_logs"], [n for n, _ in old])
    gone = await connection.fetch(queries()["delete_tombstones"], sweep.now, limit)
    await connection.execute(queries()["delete_leases"])
    return Expired(tuple(due), tuple(id_ for _, id_ in old), more=limit in {len(due), len(old), len(gone)})


async def _write(connection: Connection[Record], channel: str, held: Held) -> None:
    told = payloads(held.told())
    if held.made:
        await _insert(connection, held)
    if held.changed or held.logged or told:
        rows = [(held.numbers[id_], *_CHANGING(held.promises[id_]), id_ in held.parents) for id_ in held.changed]
        events = [(held.numbers[id_], event.sequence, event.data) for id_, event in held.logged]
        await connection.execute(queries()["write_changes"], channel, told, *_columns(rows, 8), *_columns(events, 3))
    if held.trims:
        trims = [(held.numbers[id_], upto) for id_, upto in held.trims.items()]
        await connection.execute(queries()["trim_logs"], *_columns(trims, 2))


async def _insert(connection: Connection[Record], held: Held) -> None:
    rows = [(*_ALL(held.promises[id_]), held.tails[id_].trimmed, id_ in held.parents) for id_ in held.made]
    found = await connection.fetch(queries()["insert_promises"], *_columns(rows, 18))
    if len(found) < len(rows):
        raise OvertakenError
    held.numbers.update((id_, n) for n, id_ in found)


def _columns(rows: Iterable[tuple[Any, ...]], width: int) -> list[list[Any]]:
    """Rows as the arrays that `unnest` makes rows of again."""
    columns = [list(column) for column in zip(*rows, strict=True)]
    return columns or [[] for _ in range(width)]
