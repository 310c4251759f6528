"""What one transaction holds: the rows it has locked, as they were and as they shall be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from capsule_bridge.records import LoggedEvent, Promise
from capsule_bridge.rules import Tail

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Key = tuple[str, str, str]
"""Principal, session and idempotency key."""


class Row(NamedTuple):
    """A promise with what only the store knows of it.

    `buried_until`: it is kept no longer, and only its name is left.
    """

    n: int
    promise: Promise
    trimmed: int
    has_children: bool
    buried_until: int | None


def row_of(columns: Iterable[Any]) -> Row:
    """The row, from columns in the order of the queries, of which the middle is the order of the dataclass."""
    n, *fields, trimmed, has_children, buried_until = columns
    return Row(n, Promise(*fields), trimmed, has_children, buried_until)


def key_of(of: Any) -> Key | None:
    """What its idempotency key is unique by; of a promise, or of the request for one."""
    return None if of.key is None else (of.principal, of.session, of.key)


class Held:
    """Promises and logs by id, for decisions that are taken one after another and written all at once.

    `numbers` are those of promises that the database has; `made`, `changed`, `logged` and `trims` are what it does not
    have yet. `parents` are those that ever had children; of those that are pending, `children` has all.
    """

    def __init__(self) -> None:
        self.promises: dict[str, Promise] = {}
        self.numbers: dict[str, int] = {}
        self.keys: dict[Key, str] = {}
        self.buried: set[str] = set()
        self.parents: set[str] = set()
        self.children: dict[str, list[str]] = {}
        self.tails: dict[str, Tail] = {}
        self.made: dict[str, None] = {}
        self.changed: dict[str, None] = {}
        self.settled: dict[str, None] = {}
        self.events: dict[str, dict[int, bytes]] = {}
        self.logged: list[tuple[str, LoggedEvent]] = []
        self.trims: dict[str, int] = {}

    def take(self, row: Row) -> bool:
        """Hold a row of the database; whether it is new here."""
        id_ = row.promise.id
        if id_ in self.numbers:
            return False
        self.numbers[id_] = row.n
        key = key_of(row.promise)
        if key is not None:
            self.keys[key] = id_
        if row.buried_until is not None:
            self.buried.add(id_)
            return True
        self.promises[id_] = row.promise
        self.tails[id_] = Tail(row.trimmed, row.trimmed)
        if row.has_children:
            self.parents.add(id_)
        self._take_child(row.promise)
        return True

    def make(self, promise: Promise, log: Sequence[bytes]) -> None:
        """A promise that is new, with the first events of its log."""
        self.promises[promise.id] = promise
        self.made[promise.id] = None
        self.tails[promise.id] = Tail(0, 0)
        self.log(promise.id, log)
        key = key_of(promise)
        if key is not None:
            self.keys[key] = promise.id
        self._take_child(promise)
        if promise.parent is not None and promise.parent not in self.parents:
            self.parents.add(promise.parent)
            self.change(self.promises[promise.parent])

    def change(self, promise: Promise) -> None:
        """What has become of a promise."""
        self.promises[promise.id] = promise
        if promise.id not in self.made:
            self.changed[promise.id] = None
        if not promise.pending:
            self.settled[promise.id] = None

    def kept(self, id_: str, after: int, count: int) -> list[bytes]:
        """Of the events behind a number, those that are not trimmed."""
        tail, events = self.tails[id_], self.events.get(id_, {})
        first, last = max(after, tail.trimmed) + 1, min(after + count, tail.last)
        return [events[number] for number in range(first, last + 1)]

    def log(self, id_: str, events: Sequence[bytes]) -> int:
        """New events at the end of a log; answers their last number."""
        tail, kept = self.tails[id_], self.events.setdefault(id_, {})
        for number, data in enumerate(events, start=tail.last + 1):
            kept[number] = data
            self.logged.append((id_, LoggedEvent(number, data)))
        self.tails[id_] = Tail(tail.trimmed, tail.last + len(events))
        return self.tails[id_].last

    def trim(self, id_: str, upto: int) -> None:
        """The events up to a number are gone."""
        self.tails[id_] = Tail(upto, self.tails[id_].last)
        self.trims[id_] = upto

    def told(self) -> list[str]:
        """Of which promises verdict or log is new, for those who wait for them."""
        grown = (id_ for id_, _ in self.logged if id_ not in self.made)
        return list(dict.fromkeys([*self.settled, *grown]))

    def _take_child(self, promise: Promise) -> None:
        if promise.parent is not None and promise.pending:
            self.children.setdefault(promise.parent, []).append(promise.id)
