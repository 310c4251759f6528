"""Promises and events as rows. What is read or written here counts once the transaction around it is committed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from capsule_bridge.records import Fence, LoggedEvent, Promise
from capsule_bridge.rules import Tail
from capsule_bridge.sqlite.files import INLINE_BYTES
from capsule_bridge.sqlite.schema import queries
from capsule_bridge.states import PENDING

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator, Sequence

    from capsule_bridge.sqlite.files import Blobs


class Row(NamedTuple):
    """A promise with what only the store knows of it: its number and its files."""

    n: int
    promise: Promise
    files: tuple[str | None, str | None]


class LogOwner(NamedTuple):
    """What decides whether a log may grow."""

    id: str
    pending: bool
    fence: Fence


class LogHead(NamedTuple):
    """A log without its events, and without the values of its promise, which may be large."""

    n: int
    promise: LogOwner
    tail: Tail


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

    def insert(self, promise: Promise, log: Sequence[bytes]) -> None:
        """A new row, and the first events of its log."""
        param, file = self._stored(promise.param)
        cursor = self.connection.execute(
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
        if log:
            assert cursor.lastrowid is not None
            self.insert_events(cursor.lastrowid, 1, log)

    def update(self, row: Row, promise: Promise) -> None:
        """What can change of a promise that is pending in its row."""
        value, file = self._stored(promise.value)
        fields = promise.state, value, promise.epoch, promise.version, promise.started_at, promise.settled_at, file
        self.connection.execute(queries()["update_promise"], (*fields, row.n))

    def delete(self, row: Row) -> None:
        """A promise and its log."""
        self.dropped += [file for file in row.files if file]
        self.delete_events(row.n, 2**62)
        self.connection.execute(queries()["delete_promise"], (row.n,))

    def log(self, id_: str) -> LogHead | None:
        """The log of a promise, if there is one of this id."""
        found = self.connection.execute(queries()["log_by_id"], (id_,)).fetchone()
        if found is None:
            return None
        n, trimmed, last, state, epoch, version = found
        return LogHead(n, LogOwner(id_, state == PENDING, Fence(epoch, version)), Tail(trimmed, last))

    def events(self, n: int, after: int, limit: int) -> Iterator[LoggedEvent]:
        """The events behind a number, each loaded when it is asked for."""
        for sequence, data, file in self.connection.execute(queries()["events_behind"], (n, after, limit)):
            yield LoggedEvent(sequence, self._loaded(data, file))

    def insert_events(self, n: int, first: int, events: Sequence[bytes]) -> None:
        """New events, numbered from `first`."""
        rows = [(n, first + number, *self._stored(data)) for number, data in enumerate(events)]
        self.connection.executemany(queries()["insert_event"], rows)

    def delete_events(self, n: int, upto: int) -> None:
        """The events up to a number."""
        self.dropped += [file for (file,) in self.all("event_files", (n, upto))]
        self.connection.execute(queries()["delete_events"], (n, upto))

    def _stored(self, data: bytes) -> tuple[bytes | None, str | None]:
        if len(data) <= INLINE_BYTES:
            return data, None
        file = self._blobs.put(data)
        self.written.append(file)
        return None, file

    def _loaded(self, data: bytes | None, file: str | None) -> bytes:
        return self._blobs.get(file) if file else data or b""

    def _row(self, n: int, *columns: Any) -> Row:
        *fields, param_file, value_file = columns
        # In the order of the queries' columns, which is that of the dataclass.
        promise = Promise(*fields)
        if param_file or value_file:
            param, value = self._loaded(promise.param, param_file), self._loaded(promise.value, value_file)
            promise = promise._replace(param=param, value=value)
        return Row(n, promise, (param_file, value_file))
