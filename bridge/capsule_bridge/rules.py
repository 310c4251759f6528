"""What a store decides, as pure functions of what it holds, what is asked and the time. Every store uses these.

They raise refusals, and answer promises as they shall be kept from then on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from capsule_bridge.records import NewPromise, Promise
from capsule_bridge.states import CANCELED, PENDING, PROMISE
from capsule_protocol.errors import LocalProtocolError, SessionError, StoreError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from capsule_bridge.records import Claim, Fence, LoggedEvent, Settlement


def is_due(promise: Promise, now: int) -> bool:
    """Whether a pending promise has timed out, though nobody has written it down yet."""
    return promise.state == PENDING and promise.timeout_at is not None and promise.timeout_at <= now


def projected(promise: Promise, now: int) -> Promise:
    """The promise as it is at that time: a time-out happens when it is due, not when somebody notices."""
    if not is_due(promise, now):
        return promise
    return promise._replace(state=PROMISE[promise.state]["time_out"], settled_at=promise.timeout_at)


def attached(new: NewPromise, same_id: Promise | None, same_key: Promise | None) -> Promise | None:
    """The promise that the request has been given before, or None: it is to be made. Raises `idempotency_conflict`."""
    if same_key is not None:
        found, same = same_key, _request(new) == _request(same_key)
    elif same_id is not None:
        # Without the key an id has to be all that it was: ids of other sessions must not lead to their promises.
        found, same = same_id, whole(new) == whole(same_id)
    else:
        return None
    if same:
        return found
    what = f"idempotency key {new.key!r}" if same_key is not None else f"id {new.id!r}"
    raise SessionError("idempotency_conflict", f"the {what} was used before with another request")


def _request(promise: NewPromise | Promise) -> tuple[object, ...]:
    return promise.kind, promise.fingerprint, promise.parent


def whole(promise: NewPromise | Promise) -> tuple[object, ...]:
    """What was asked for, by whom, for which session, and under which key."""
    return *_request(promise), promise.principal, promise.session, promise.key


def made(new: NewPromise, parent: Promise | None, now: int) -> Promise:
    """The new promise. Raises `promise_unknown` or `promise_settled` if it has a parent that cannot have children."""
    if new.parent is not None:
        if parent is None:
            raise unknown(new.parent)
        if not projected(parent, now).pending:
            raise SessionError("promise_settled", f"promise {new.parent!r} is settled and gets no children")
    created_at = now if new.timeout_at is None else min(now, new.timeout_at)
    promise = Promise(
        id=new.id,
        kind=new.kind,
        session=new.session,
        fingerprint=new.fingerprint,
        param=new.param,
        principal=new.principal,
        key=new.key,
        parent=new.parent,
        timeout_at=new.timeout_at,
        created_at=created_at,
    )
    current = projected(promise, now)
    return current if new.epoch is None else started(current, new.epoch, now)[0]


def started(promise: Promise, epoch: int, now: int, again: bool = True) -> tuple[Promise, bool]:
    """The promise under its new owner, and whether this is the first start. A settled one stays as it is.

    So does one that has been started if it is not to be started `again`.
    """
    current = projected(promise, now)
    if not current.pending:
        return current, False
    if epoch < current.epoch:
        raise _fenced(current, f"epoch {epoch}")
    first = current.started_at is None
    if not (first or again):
        return current, False
    since = now if current.started_at is None else current.started_at
    return current._replace(epoch=epoch, version=current.version + 1, started_at=since), first


def settled(promise: Promise, settlement: Settlement, now: int) -> tuple[Promise, bool]:
    """The promise with its verdict, and whether the settlement decided it: the first one does."""
    current = projected(promise, now)
    if not current.pending:
        return current, False
    check_fence(current, settlement.fence)
    state = PROMISE[current.state][settlement.action]
    return current._replace(state=state, value=settlement.value, settled_at=now), True


def orphaned(child: Promise, parent: Promise) -> Promise:
    """A child whose parent has been settled."""
    assert parent.settled_at is not None
    current = projected(child, parent.settled_at)
    if not current.pending:
        return current
    return current._replace(state=CANCELED, settled_at=parent.settled_at)


def check_fence(promise: Owned, fence: Fence | None) -> None:
    """Raises `promise_fenced` if the promise belongs to somebody else than the fence says."""
    if fence is not None and fence != promise.fence:
        raise _fenced(promise, f"epoch {fence.epoch}, version {fence.version}")


def check_claim(claim: Claim | None, promise: Owned | None) -> None:
    """Raises `promise_fenced` if the promise that the claim is about, and which is here, is somebody else's by now.

    `promise_unknown`: there is none.
    """
    if claim is not None:
        if promise is None:
            raise unknown(claim.id)
        check_fence(promise, claim.fence)


class Tail(NamedTuple):
    """The end of a log: numbers up to `trimmed` are gone, up to `last` there are events."""

    trimmed: int
    last: int


class Owned(Protocol):
    """What decides whether a promise may be settled, and its log may grow."""

    @property
    def id(self) -> str:
        """Which it is."""

    @property
    def pending(self) -> bool:
        """Whether it has no verdict yet."""

    @property
    def fence(self) -> Fence:
        """Who owns it."""


def appended(
    promise: Owned, tail: Tail, kept: Sequence[bytes], after: int, events: Sequence[bytes], fence: Fence | None
) -> Sequence[bytes]:
    """Those of the events, meant to follow number `after`, that are not in the log yet.

    `kept` is what the log still has behind `after`. Raises `sequence_gap` if the log has other events there or ends
    before `after`, `promise_settled` and `promise_fenced`.
    """
    known = min(max(0, tail.last - after), len(events))
    lost = min(max(0, tail.trimmed - after), known)  # of these nobody can say any more what they were
    if after > tail.last or list(events[lost:known]) != list(kept[: known - lost]):
        raise LocalProtocolError("sequence_gap", f"the log of {promise.id!r} ends at {tail.last}, not at {after}")
    if known == len(events):
        return ()
    if not promise.pending:
        raise SessionError("promise_settled", f"promise {promise.id!r} is settled: its log is complete")
    check_fence(promise, fence)
    return events[known:]


def part(events: Iterable[LoggedEvent], size: int) -> tuple[LoggedEvent, ...]:
    """The first of the events, up to the one that makes them so large."""
    taken = []
    for event in events:
        taken.append(event)
        size -= len(event.data)
        if size <= 0:
            break
    return tuple(taken)


def request_of(promise: Promise) -> bytes:
    """What was asked for, of a promise that says so. Raises StoreError, `store_damaged`, if it cannot be read."""
    if not promise.param:
        raise StoreError("store_damaged", f"what {promise.id!r} asked for cannot be read: its file is lost or damaged")
    return promise.param


def spans(promise: Promise, now: int) -> dict[str, float | None]:
    """Its `age`, and how long is `left` to a pending one, in seconds by the clock that its times are of."""
    waits = promise.pending and promise.timeout_at is not None
    left = (promise.timeout_at or 0) - now
    return {"age": max(0, now - promise.created_at) / 1000, "left": max(0, left) / 1000 if waits else None}


def unknown(id_: str) -> SessionError:
    """The refusal of an id that no promise has."""
    return SessionError("promise_unknown", f"there is no promise {id_!r}")


def expired(what: str) -> SessionError:
    """The refusal of an id or key whose promise has been forgotten."""
    return SessionError("promise_expired", f"{what} belonged to a promise that is kept no longer")


def _fenced(promise: Owned, who: str) -> SessionError:
    owner = f"epoch {promise.fence.epoch}, version {promise.fence.version}"
    text = f"promise {promise.id!r} belongs to {owner}, and not to {who}"
    return SessionError("promise_fenced", text)
