"""Promises and events as rows. What is read or written here counts once the transaction around it is committed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from capsule_bridge.records import LoggedEvent, Promise
from capsule_bridge.rules import Tail
from capsule_bridge.sqlite.files import INLINE_BYTES
from capsule_bridge.sqlite.schema import queries

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from capsule_bridge.sqlite.files import Blobs


class Row(NamedTuple):
    """A promise with what only the store knows of it: its number, its log's beginning, and its files."""

    n: int
    trimmed: int
    promise: Promise
    files: tuple[str | None, str | None]


class Rows:
    """The tables over one connection.

    `written` are files that belong to rows of the open transaction, `dropped` those whose rows it takes away.
    """

    def __init__(self, connection: sqlite3.Connection, blobs: Blobs) -> None:
        self.connection = connection
        self.written: list[str] = []
        self.dropped: list[str] = []
        self._blobs = blobs

    def all(self, query: str, parameters: Any = ()) -> list[Any]:
        """What the named query finds."""
        return self.connection.execute(queries()[query], parameters).fetchall()

    def promises(self, query: str, parameters: Any) -> list[Row]:
        """The promises that the named query finds."""
        return [self._row(*found) for found in self.all(query, parameters)]

    def promise(self, query: str, *parameters: object) -> Row | None:
        """The promise that the named query finds, if any."""
        found = self.connection.execute(queries()[query], parameters).fetchone()
        return None if found is None else self._row(*found)

    def insert(self, promise: Promise) -> None:
        """A new row."""
        param, file = self._stored(promise.param)
        self.connection.execute(
            queries()["insert_promise"],
            (
                promise.id,
                promise.kind,
                promise.session,
                promise.fingerprint,
                param,
                promise.principal,
                promise.key,
                promise.parent,
                promise.timeout_at,
                promise.created_at,
                promise.state,
                promise.value,
                promise.epoch,
                promise.version,
                promise.started_at,
                promise.settled_at,
                file,
            ),
        )

    def update(self, row: Row, promise: Promise) -> None:
        """What can change of a promise that is pending in its row."""
        value, file = self._stored(promise.value)
        fields = promise.state, value, promise.epoch, promise.version, promise.started_at, promise.settled_at, file
        self.connection.execute(queries()["update_promise"], (*fields, row.n))

    def delete(self, row: Row) -> None:
        """A promise and its log."""
        self.dropped += [file for file in row.files if file]
        self.delete_events(row, 2**62)
        self.connection.execute(queries()["delete_promise"], (row.n,))

    def tail(self, row: Row) -> Tail:
        """The end of a promise's log."""
        (last,) = self.connection.execute(queries()["last_event"], (row.n,)).fetchone()
        return Tail(row.trimmed, row.trimmed if last is None else last)

    def events(self, row: Row, after: int, limit: int) -> list[LoggedEvent]:
        """The events behind a number."""
        found = self.all("events_behind", (row.n, after, limit))
        return [LoggedEvent(sequence, self._loaded(data, file)) for sequence, data, file in found]

    def insert_events(self, row: Row, first: int, events: Sequence[bytes]) -> None:
        """New events, numbered from `first`."""
        rows = [(row.n, first + number, *self._stored(data)) for number, data in enumerate(events)]
        self.connection.executemany(queries()["insert_event"], rows)

    def delete_events(self, row: Row, upto: int) -> None:
        """The events up to a number."""
        self.dropped += [file for (file,) in self.all("event_files", (row.n, upto))]
        self.connection.execute(queries()["delete_events"], (row.n, upto))

    def _stored(self, data: bytes) -> tuple[bytes | None, str | None]:
        if len(data) <= INLINE_BYTES:
            return data, None
        file = self._blobs.put(data)
        self.written.append(file)
        return None, file

    def _loaded(self, data: bytes | None, file: str | None) -> bytes:
        return self._blobs.get(file) if file else data or b""

    def _row(self, n: int, trimmed: int, *columns: Any) -> Row:
        *fields, param_file, value_file = columns
        # In the order of the queries' columns, which is that of the dataclass.
        promise = Promise(*fields)
        if param_file or value_file:
            param, value = self._loaded(promise.param, param_file), self._loaded(promise.value, value_file)
            promise = replace(promise, param=param, value=value)
        return Row(n, trimmed, promise, (param_file, value_file))
