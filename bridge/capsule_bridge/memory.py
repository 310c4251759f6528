"""The store of level `none`: everything is gone with the process."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from capsule_bridge import rules
from capsule_bridge.records import Created, Expired, Log, LoggedEvent, Settled, Started
from capsule_bridge.store import PAGE, READ_BYTES
from capsule_protocol.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from capsule_bridge.records import Claim, Fence, NewPromise, Promise, Retention, Settlement

_Key = tuple[str, str, str | None]


@dataclass(slots=True)
class _Events:
    trimmed: int = 0
    kept: list[bytes] = field(default_factory=list)

    @property
    def tail(self) -> rules.Tail:
        return rules.Tail(self.trimmed, self.trimmed + len(self.kept))

    def behind(self, after: int, limit: int) -> list[bytes]:
        start = max(0, after - self.trimmed)
        return self.kept[start : start + limit]


class _Tombstone(NamedTuple):
    until: int
    key: _Key


class MemoryStore:
    """A `PromiseStore` in dictionaries. No method waits for anything, so each is one transaction."""

    def __init__(self) -> None:
        self._promises: dict[str, Promise] = {}
        self._keys: dict[_Key, str] = {}
        self._logs: dict[str, _Events] = {}
        self._children: dict[str, list[str]] = {}
        self._tombstones: dict[str, _Tombstone] = {}
        self._buried_keys: dict[_Key, str] = {}
        self._closed = False

    @property
    def failure(self) -> Exception | None:
        """As `PromiseStore.failure`: there is nothing that could fail."""
        return None

    async def create(self, new: NewPromise, *, now: int) -> Created:
        """As `PromiseStore.create`."""
        self._check_open()
        key = (new.principal, new.session, new.key)
        same_key = None if new.key is None else self._promises.get(self._keys.get(key, ""))
        found = rules.attached(new, self._promises.get(new.id), same_key)
        if found is not None:
            return Created(self._look(found.id, now), fresh=False)
        if new.id in self._tombstones:
            raise rules.expired(f"id {new.id!r}")
        if new.key is not None and key in self._buried_keys:
            raise rules.expired(f"idempotency key {new.key!r}")
        self._check_claim(new.claim)
        parent = None if new.parent is None else self._promises.get(new.parent)
        promise = self._promises[new.id] = rules.made(new, parent, now)
        self._logs[new.id] = _Events(kept=list(new.log))
        if new.key is not None:
            self._keys[key] = new.id
        if new.parent is not None:
            self._children.setdefault(new.parent, []).append(new.id)
        return Created(promise, fresh=True)

    async def start(
        self,
        id: str,  # noqa: A002
        *,
        epoch: int,
        now: int,
        again: bool = True,
        claim: Claim | None = None,
    ) -> Started:
        """As `PromiseStore.start`."""
        before = self._find(id)
        self._check_claim(claim)
        promise, first = rules.started(before, epoch, now, again)
        self._keep(promise)
        return Started(promise, first)

    async def settle(self, *settlements: Settlement, now: int) -> list[Settled]:
        """As `PromiseStore.settle`."""
        before = {each.id: self._find(each.id) for each in settlements}
        # Whatever is refused must be so before anything is done.
        for each in settlements:
            if rules.settled(before[each.id], each, now)[1]:
                self._check_claim(each.claim)
                if each.log:
                    self._new_events(each)
        return [self._settle(each, now) for each in settlements]

    async def append(
        self,
        id: str,  # noqa: A002
        events: Sequence[bytes],
        *,
        after: int,
        fence: Fence | None = None,
    ) -> int:
        """As `PromiseStore.append`."""
        promise, log = self._find(id), self._logs[id]
        log.kept += rules.appended(promise, log.tail, log.behind(after, len(events)), after, events, fence)
        return log.tail.last

    async def trim(self, id: str, upto: int) -> None:  # noqa: A002
        """As `PromiseStore.trim`."""
        self._find(id)
        log = self._logs[id]
        upto = min(upto, log.tail.last)
        if upto > log.trimmed:
            del log.kept[: upto - log.trimmed]
            log.trimmed = upto

    async def get(self, id: str, *, now: int) -> Promise:  # noqa: A002
        """As `PromiseStore.get`."""
        return self._look(id, now)

    async def read(self, id: str, *, after: int, limit: int = PAGE) -> Log:  # noqa: A002
        """As `PromiseStore.read`."""
        self._find(id)
        log = self._logs[id]
        first = max(after, log.trimmed) + 1
        events = (LoggedEvent(first + n, data) for n, data in enumerate(log.behind(after, limit)))
        return Log(log.trimmed + 1, log.tail.last, rules.part(events, READ_BYTES))

    async def pending(
        self, *, now: int, session: str | None = None, after: str = "", limit: int = PAGE
    ) -> list[Promise]:
        """As `PromiseStore.pending`."""
        self._check_open()
        ids = list(self._promises)
        if after:
            self._find(after)
            ids = ids[ids.index(after) + 1 :]
        found = (self._promises[each] for each in ids)
        wanted = [
            each
            for each in found
            if each.pending and not rules.is_due(each, now) and (session is None or each.session == session)
        ]
        return wanted[:limit]

    async def expire(self, *, now: int, retention: Retention, limit: int = PAGE) -> Expired:
        """As `PromiseStore.expire`."""
        self._check_open()
        due = [each.id for each in self._promises.values() if rules.is_due(each, now)][:limit]
        for id_ in due:
            self._look(id_, now)
        old = [
            each.id
            for each in self._promises.values()
            if each.settled_at is not None and each.settled_at + retention.results <= now
        ][:limit]
        for id_ in old:
            self._forget(id_, now + retention.tombstones)
        for id_, tombstone in list(self._tombstones.items()):
            if tombstone.until <= now:
                del self._tombstones[id_]
                self._buried_keys.pop(tombstone.key, None)
        return Expired(tuple(due), tuple(old), more=limit in {len(due), len(old)})

    async def close(self) -> None:
        """As `PromiseStore.close`."""
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError("store_closed", "the store has been closed")

    def _find(self, id_: str) -> Promise:
        self._check_open()
        if id_ in self._promises:
            return self._promises[id_]
        raise rules.expired(f"id {id_!r}") if id_ in self._tombstones else rules.unknown(id_)

    def _check_claim(self, claim: Claim | None) -> None:
        rules.check_claim(claim, None if claim is None else self._promises.get(claim.id))

    def _look(self, id_: str, now: int) -> Promise:
        promise = rules.projected(self._find(id_), now)
        self._keep(promise)
        return promise

    def _settle(self, settlement: Settlement, now: int) -> Settled:
        promise, decided = rules.settled(self._promises[settlement.id], settlement, now)
        if decided and settlement.log:
            self._logs[settlement.id].kept += self._new_events(settlement)
        self._keep(promise)
        return Settled(promise, decided)

    def _new_events(self, last: Settlement) -> Sequence[bytes]:
        promise, log = self._promises[last.id], self._logs[last.id]
        return rules.appended(
            promise, log.tail, log.behind(last.after, len(last.log)), last.after, last.log, last.fence
        )

    def _keep(self, promise: Promise) -> None:
        """Write the promise down, and cancel all below it if it is settled."""
        self._promises[promise.id] = promise
        settled = [] if promise.pending else [promise]
        while settled:
            parent = settled.pop()
            for child in self._children.pop(parent.id, ()):
                before = self._promises.get(child)
                if before is not None and before.pending:
                    orphan = self._promises[child] = rules.orphaned(before, parent)
                    settled.append(orphan)

    def _forget(self, id_: str, until: int) -> None:
        promise = self._promises.pop(id_)
        key = (promise.principal, promise.session, promise.key)
        if promise.key is not None:
            del self._keys[key]
            self._buried_keys[key] = id_
        del self._logs[id_]
        self._tombstones[id_] = _Tombstone(until, key)
