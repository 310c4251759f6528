"""What is done with the rows that a transaction holds, by the decisions of `rules`.

Each of these either refuses before it has changed anything, or is done wholly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from capsule_bridge import rules
from capsule_bridge.postgres.held import key_of
from capsule_bridge.records import Created, Settled, Started

if TYPE_CHECKING:
    from collections.abc import Sequence

    from capsule_bridge.postgres.held import Held
    from capsule_bridge.records import Claim, Fence, NewPromise, Promise, Settlement
    from capsule_protocol.errors import SessionError


def create(held: Held, new: NewPromise, now: int) -> Created:
    """As `PromiseStore.create`."""
    key = key_of(new)
    owner = None if key is None else held.keys.get(key)
    same_key = None if owner is None else held.promises.get(owner)
    found = rules.attached(new, held.promises.get(new.id), same_key)
    if found is not None:
        return Created(_keep(held, found, rules.projected(found, now)), fresh=False)
    if new.id in held.buried:
        raise rules.expired(f"id {new.id!r}")
    if owner is not None:
        raise rules.expired(f"idempotency key {new.key!r}")
    _check_claim(held, new.claim)
    parent = None if new.parent is None else held.promises.get(new.parent)
    promise = rules.made(new, parent, now)
    held.make(promise, new.log)
    return Created(promise, fresh=True)


def start(held: Held, id_: str, epoch: int, now: int, again: bool, claim: Claim | None) -> Started:
    """As `PromiseStore.start`."""
    before = _find(held, id_)
    _check_claim(held, claim)
    promise, first = rules.started(before, epoch, now, again)
    return Started(_keep(held, before, promise), first)


def settle(held: Held, settlements: Sequence[Settlement], now: int) -> list[Settled]:
    """As `PromiseStore.settle`."""
    if len(settlements) > 1:
        for each in settlements:  # whatever is refused must be so before anything is done
            if rules.settled(_find(held, each.id), each, now)[1]:
                _check_claim(held, each.claim)
                if each.log:
                    _new_events(held, each.id, each.log, each.after, each.fence)
    answers = []
    for each in settlements:
        before = _find(held, each.id)
        promise, decided = rules.settled(before, each, now)
        if decided:
            _check_claim(held, each.claim)
        if decided and each.log:
            append(held, each.id, each.log, each.after, each.fence)
        answers.append(Settled(_keep(held, before, promise), decided))
    return answers


def append(held: Held, id_: str, events: Sequence[bytes], after: int, fence: Fence | None) -> int:
    """As `PromiseStore.append`."""
    return held.log(id_, _new_events(held, id_, events, after, fence))


def _new_events(held: Held, id_: str, events: Sequence[bytes], after: int, fence: Fence | None) -> Sequence[bytes]:
    promise = _find(held, id_)
    kept = held.kept(id_, after, len(events))
    return rules.appended(promise, held.tails[id_], kept, after, events, fence)


def trim(held: Held, id_: str, upto: int) -> None:
    """As `PromiseStore.trim`."""
    _find(held, id_)
    tail = held.tails[id_]
    upto = min(upto, tail.last)
    if upto > tail.trimmed:
        held.trim(id_, upto)


def look(held: Held, id_: str, now: int) -> Promise:
    """The promise, its time-out written down if it is due."""
    before = _find(held, id_)
    return _keep(held, before, rules.projected(before, now))


def missing(id_: str, *, buried: bool) -> SessionError:
    """The refusal of an id that no promise has, or none has any more."""
    return rules.expired(f"id {id_!r}") if buried else rules.unknown(id_)


def _check_claim(held: Held, claim: Claim | None) -> None:
    rules.check_claim(claim, None if claim is None else held.promises.get(claim.id))


def _find(held: Held, id_: str) -> Promise:
    if id_ in held.promises:
        return held.promises[id_]
    raise missing(id_, buried=id_ in held.buried)


def _keep(held: Held, before: Promise, promise: Promise) -> Promise:
    """Hold the promise if it has changed, and cancel all below it if it has just been settled."""
    if promise is before:
        return promise
    held.change(promise)
    settled = [] if promise.pending else [promise]
    while settled:  # not by recursion: a line of descendants may be long
        parent = settled.pop()
        for child in held.children.pop(parent.id, ()):
            current = held.promises[child]
            orphan = rules.orphaned(current, parent)
            if orphan is not current:
                held.change(orphan)
                settled.append(orphan)
    return promise
