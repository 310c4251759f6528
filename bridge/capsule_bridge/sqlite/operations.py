"""What a store does within a transaction: decisions of `rules`, written down as rows.

Each of these either refuses before it has changed anything, or is done wholly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from capsule_bridge import rules
from capsule_bridge.records import Created, Expired, Log, Settled, Started
from capsule_bridge.sqlite.files import INLINE_BYTES
from capsule_bridge.store import READ_BYTES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from capsule_bridge.records import Claim, Fence, NewPromise, Promise, Retention, Settlement
    from capsule_bridge.sqlite.recent import Row
    from capsule_bridge.sqlite.rows import LogHead, Rows
    from capsule_protocol.errors import SessionError


def create(rows: Rows, new: NewPromise, now: int) -> Created:
    """As `PromiseStore.create`."""
    if new.parent is None and new.claim is None and len(new.param) <= INLINE_BYTES:
        promise = rules.made(new, None, now)
        if rows.insert(promise, new.log):  # by far the most are new: so the others are looked for only if it is not
            return Created(promise, fresh=True)
    row = requested(rows, new)
    if row is not None:
        return Created(keep(rows, row, rules.projected(row.promise, now)), fresh=False)
    _check_claim(rows, new.claim)
    parent = None if new.parent is None else rows.find(new.parent)
    promise = rules.made(new, parent and parent.promise, now)
    rows.insert(promise, new.log)
    return Created(promise, fresh=True)


def requested(rows: Rows, new: NewPromise) -> Row | None:
    """What the same request has made before, if it has. Raises `idempotency_conflict`, `promise_expired`."""
    request = new.id, new.principal, new.session, new.key
    rivals = rows.promises("promises_of_request", request)
    same_id = next((row.promise for row in rivals if row.promise.id == new.id), None)
    same_key = next((row.promise for row in rivals if _has_key_of(row.promise, new)), None)
    found = rules.attached(new, same_id, same_key)
    if found is not None:
        return next(row for row in rivals if row.promise is found)
    buried = [id_ for (id_,) in rows.all("tombstones_of_request", request)]
    if buried:
        raise rules.expired(f"id {new.id!r}" if new.id in buried else f"idempotency key {new.key!r}")
    return None


def start(rows: Rows, id_: str, epoch: int, now: int, again: bool = True, claim: Claim | None = None) -> Started:
    """As `PromiseStore.start`."""
    row = find(rows, id_)
    _check_claim(rows, claim)
    promise, first = rules.started(row.promise, epoch, now, again)
    return Started(keep(rows, row, promise), first)


def settle(rows: Rows, settlements: Sequence[Settlement], now: int) -> list[Settled]:
    """As `PromiseStore.settle`."""
    if len(settlements) > 1:
        check_settlements(rows, settlements, now)
    answers = []
    for each in settlements:
        row = find_to_settle(rows, each.id)
        promise, decided = rules.settled(row.promise, each, now)
        if decided:
            _check_claim(rows, each.claim)
        if decided and each.log:
            append(rows, each.id, each.log, each.after, each.fence)
        answers.append(Settled(keep(rows, row, promise), decided))
    return answers


def check_settlements(rows: Rows, settlements: Sequence[Settlement], now: int) -> list[Promise]:
    """The promises as they are; whatever would be refused is so, before anything is done."""
    found = [find_to_settle(rows, each.id).promise for each in settlements]
    for promise, each in zip(found, settlements, strict=True):
        if rules.settled(promise, each, now)[1]:
            _check_claim(rows, each.claim)
            if each.log:
                _new_events(rows, each.id, each.log, each.after, each.fence)
    return found


def append(rows: Rows, id_: str, events: Sequence[bytes], after: int, fence: Fence | None) -> int:
    """As `PromiseStore.append`."""
    head, added = _new_events(rows, id_, events, after, fence)
    return rows.append(head, added)


def _new_events(
    rows: Rows, id_: str, events: Sequence[bytes], after: int, fence: Fence | None
) -> tuple[LogHead, Sequence[bytes]]:
    head = _find_log(rows, id_)
    kept = [data for _, data in rows.events(head.n, after, len(events))] if after < head.tail.last else []
    return head, rules.appended(head.promise, head.tail, kept, after, events, fence)


def trim(rows: Rows, id_: str, upto: int) -> None:
    """As `PromiseStore.trim`."""
    head = _find_log(rows, id_)
    upto = min(upto, head.tail.last)
    if upto > head.tail.trimmed:
        rows.trim(head, upto)


def look(rows: Rows, id_: str, now: int) -> Promise:
    """The promise, its time-out written down if it is due."""
    row = find(rows, id_)
    return keep(rows, row, rules.projected(row.promise, now))


def read(rows: Rows, id_: str, after: int, limit: int) -> Log:
    """As `PromiseStore.read`."""
    head = _find_log(rows, id_)
    return Log(head.tail.trimmed + 1, head.tail.last, rules.part(rows.events(head.n, after, limit), READ_BYTES))


def pending(rows: Rows, now: int, session: str | None, after: str, limit: int) -> list[Promise]:
    """As `PromiseStore.pending`."""
    number = find(rows, after).n if after else 0
    wanted = {"after": number, "now": now, "session": session, "limit": limit}
    return [row.promise for row in rows.promises("pending_promises", wanted)]


def salvage(rows: Rows, now: int, after: str) -> tuple[list[Promise], list[Promise]]:
    """As `Salvaging.salvage`."""
    whole, others = [], []
    number = find(rows, after).n if after else 0
    for bare in rows.bare_promises("pending_promises", {"after": number, "now": now, "session": None, "limit": -1}):
        row = rows.whole(bare)
        if row is None:
            others.append(bare.promise)
        else:
            whole.append(row.promise)
    return whole, others


def expire(rows: Rows, now: int, retention: Retention, limit: int) -> Expired:
    """As `PromiseStore.expire`."""
    due = rows.bare_promises("due_promises", (now, limit))
    for each in due:
        (row,) = rows.bare_promises("promise_by_id", (each.promise.id,))  # it may have been canceled with its parent
        keep(rows, row, rules.projected(row.promise, now))
    forgotten = forget(rows, now, retention, limit)
    timed_out = tuple(row.promise.id for row in due)
    return Expired(timed_out, forgotten, more=limit in {len(due), len(forgotten)})


def forget(rows: Rows, now: int, retention: Retention, limit: int) -> tuple[str, ...]:
    """Let go of what has been kept long enough, and later of that it was. Answers the ids of the former."""
    old = rows.bare_promises("old_promises", (now - retention.results, limit))
    for row in old:
        rows.delete(row)
        of = row.promise
        rows.all("insert_tombstone", (of.id, of.principal, of.session, of.key, now + retention.tombstones))
    rows.all("delete_tombstones", (now,))
    return tuple(row.promise.id for row in old)


def find(rows: Rows, id_: str) -> Row:
    """The row of an id. Raises SessionError: `promise_unknown`, `promise_expired`."""
    row = rows.find(id_)
    if row is not None:
        return row
    raise _missing(rows, id_)


def find_to_settle(rows: Rows, id_: str) -> Row:
    """As `find`; a request that cannot be read is empty, since no verdict needs it."""
    row = rows.find_to_settle(id_)
    if row is not None:
        return row
    raise _missing(rows, id_)


def _check_claim(rows: Rows, claim: Claim | None) -> None:
    if claim is not None:
        row = rows.find(claim.id)
        rules.check_claim(claim, row and row.promise)


def _find_log(rows: Rows, id_: str) -> LogHead:
    head = rows.log(id_)
    if head is None:
        raise _missing(rows, id_)
    return head


def _missing(rows: Rows, id_: str) -> SessionError:
    return rules.expired(f"id {id_!r}") if rows.all("tombstone_of_id", (id_,)) else rules.unknown(id_)


def _has_key_of(promise: Promise, new: NewPromise) -> bool:
    wanted = new.principal, new.session, new.key
    return new.key is not None and wanted == (promise.principal, promise.session, promise.key)


def keep(rows: Rows, row: Row, promise: Promise) -> Promise:
    """Write the promise down if it has changed, and cancel all below it if it has just been settled."""
    if promise is row.promise:
        return promise
    settled = [] if promise.pending else [(promise, rows.children(promise.id))]
    rows.update(row, promise)
    while settled:  # not by recursion: a long line of descendants must not make a promise that nobody can settle
        parent, children = settled.pop()
        for child in children:
            orphan = rules.orphaned(child.promise, parent)
            settled.append((orphan, rows.children(orphan.id)))
            rows.update(child, orphan)
    return promise
