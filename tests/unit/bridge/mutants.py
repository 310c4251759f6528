"""Mistakes that a store could have, each put into the real code at one place. The tests have to find all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias
from weakref import WeakKeyDictionary

import pytest

from capsule_bridge import Fence, Promise, Settlement, SqliteStore, rules
from capsule_bridge.rules import Tail
from capsule_bridge.sqlite import operations
from capsule_bridge.sqlite.faults import FaultPoint
from capsule_bridge.sqlite.files import Blobs
from capsule_bridge.sqlite.rows import Rows
from capsule_bridge.sqlite.writer import Job, Writer, _answer

Mutant: TypeAlias = Callable[[pytest.MonkeyPatch], None]


def acknowledges_before_it_commits(patch: pytest.MonkeyPatch) -> None:
    transact = Writer._transact

    def mutant(self: Writer, batch: list[Job], careful: bool) -> None:
        fault = self._fault

        def early(point: FaultPoint) -> None:
            if point == "before_commit":
                _answer(batch)
            fault(point)

        self._fault = early
        try:
            transact(self, batch, careful)
        finally:
            self._fault = fault

    patch.setattr(Writer, "_transact", mutant)


def knows_no_fingerprint(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(rules, "_request", lambda promise: (promise.kind, promise.parent))


def knows_no_fence(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(rules, "check_fence", lambda _promise, _fence: None)


def reads_no_time_out(patch: pytest.MonkeyPatch) -> None:
    async def mutant(self: SqliteStore, id: str, *, now: int) -> Promise:
        return await self._read(lambda rows: operations.find(rows, id).promise)

    patch.setattr(SqliteStore, "get", mutant)


def counts_events_in_memory(patch: pytest.MonkeyPatch) -> None:
    """So their numbers begin again when the store is opened again."""
    counted = WeakKeyDictionary[Rows, dict[int, int]]()

    def mutant(rows: Rows, id_: str, events: Sequence[bytes], after: int, fence: Fence | None) -> int:
        head, counts = operations._find_log(rows, id_), counted.setdefault(rows, {})
        last = counts.get(head.n, 0)
        kept = [data for _, data in rows.events(head.n, after, len(events))] if after < last else []
        added = rules.appended(head.promise, Tail(head.tail.trimmed, last), kept, after, events, fence)
        rows.connection.execute("DELETE FROM events WHERE promise = ? AND sequence > ?", (head.n, last))
        rows.insert_events(head.n, last + 1, added)
        counts[head.n] = last + len(added)
        return counts[head.n]

    patch.setattr(operations, "append", mutant)


def leaves_children(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(rules, "orphaned", lambda child, _parent: child)


def lets_the_last_verdict_win(patch: pytest.MonkeyPatch) -> None:
    settled = rules.settled

    def mutant(promise: Promise, settlement: Settlement, now: int) -> tuple[Promise, bool]:
        return settled(promise._replace(state="pending", settled_at=None), settlement, now)

    patch.setattr(rules, "settled", mutant)


def takes_each_start_for_the_first(patch: pytest.MonkeyPatch) -> None:
    started = rules.started
    patch.setattr(rules, "started", lambda *asked: (started(*asked)[0], True))


def reads_from_a_cache(patch: pytest.MonkeyPatch) -> None:
    get = SqliteStore.get
    cached = WeakKeyDictionary[SqliteStore, dict[str, Promise]]()

    async def mutant(self: SqliteStore, id: str, *, now: int) -> Promise:
        return cached.setdefault(self, {}).setdefault(id, await get(self, id, now=now))

    patch.setattr(SqliteStore, "get", mutant)


def names_a_file_before_it_is_synced(patch: pytest.MonkeyPatch) -> None:
    def mutant(self: Blobs, name: str, data: bytes) -> None:
        (self._directory / name).write_bytes(data)

    patch.setattr(Blobs, "_write", mutant)


MUTANTS: dict[str, Mutant] = {
    mutant.__name__: mutant
    for mutant in (
        acknowledges_before_it_commits,
        knows_no_fingerprint,
        knows_no_fence,
        reads_no_time_out,
        counts_events_in_memory,
        leaves_children,
        lets_the_last_verdict_win,
        takes_each_start_for_the_first,
        reads_from_a_cache,
        names_a_file_before_it_is_synced,
    )
}
