"""Changes that answer nothing: gathered, and written with few statements before anything is read or committed.

With each statement the writer's thread lets go of the interpreter, and beside a busy loop it waits longer to get it
back than the statement takes.
"""

from __future__ import annotations

import re
from functools import cache
from itertools import chain
from typing import TYPE_CHECKING, Final

from capsule_bridge.sqlite.schema import queries

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

SIZES: Final = (64, 16, 4, 1)
"""Rows that one statement writes: few sizes, so that each is prepared once."""
_ROW: Final = re.compile(r"\(\?(?:, \?)*\)")

Fields = tuple[object, ...]


class TakenError(Exception):
    """A new promise has an id or a key that another one has, or had. The transaction is of no use any more."""


class Deferred:
    """Those of one connection. What is written for a promise twice counts as it was written last."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._promises: list[Fields] = []
        self._updates: dict[object, Fields] = {}
        self._events: list[Fields] = []

    def insert_promise(self, *fields: object) -> None:
        """A new row, in the order of the query."""
        self._promises.append(fields)

    def update_promise(self, *fields: object) -> None:
        """What can change of a promise, in the order of the query, which ends with its number."""
        self._updates[fields[-1]] = fields

    def insert_events(self, rows: Sequence[Fields]) -> None:
        """New rows, in the order of the query."""
        self._events += rows

    def write(self) -> None:
        """Write all of it. Raises TakenError, and what SQLite raises."""
        if self._promises:
            promises, self._promises = self._promises, []
            if self._run("insert_promises", promises) < len(promises):
                raise TakenError
        if self._updates:
            updates, self._updates = list(self._updates.values()), {}
            self._run("update_promises", updates)
        if self._events:
            events, self._events = self._events, []
            self._run("insert_events", events)

    def clear(self) -> None:
        """Forget it: the transaction was rolled back."""
        self._promises, self._updates, self._events = [], {}, []

    def _run(self, query: str, rows: list[Fields]) -> int:
        """How many rows were written."""
        at = count = 0
        for size in SIZES:
            while len(rows) - at >= size:
                parameters = tuple(chain.from_iterable(rows[at : at + size]))
                count += self._connection.execute(_for_rows(query, size), parameters).rowcount
                at += size
        return count


@cache
def _for_rows(query: str, count: int) -> str:
    """The named query, which has one row of parameters, for so many."""
    return _ROW.sub(lambda row: ", ".join([row[0]] * count), queries()[query])
