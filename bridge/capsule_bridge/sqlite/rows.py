"""Promises and events as rows. What is read or written here counts once the transaction around it is committed."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from capsule_bridge.records import Fence, LoggedEvent, Promise
from capsule_bridge.rules import Tail
from capsule_bridge.sqlite.deferred import Deferred, TakenError
from capsule_bridge.sqlite.files import INLINE_BYTES, OF_A_VALUE
from capsule_bridge.sqlite.recent import Recents, Row
from capsule_bridge.sqlite.schema import queries
from capsule_bridge.states import PENDING

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator, Sequence

    from capsule_bridge.sqlite.files import Blobs


_PARAM: Final = Promise._fields.index("param")
_VALUE: Final = Promise._fields.index("value")


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
        self.recents = Recents()
        self._blobs = blobs
        self._deferred = Deferred(connection)
        self._last: int | None = None  # the highest number of a promise
        self.careful = False

    def write(self) -> None:
        """Write what was deferred, before a commit. Raises TakenError, and what SQLite raises."""
        self._deferred.write()

    def forget(self) -> None:
        """The transaction was rolled back."""
        self._deferred.clear()
        self.recents.clear()
        self.dropped.clear()

    def all(self, query: str, parameters: Any = ()) -> list[Any]:
        """What the named query finds."""
        return self._run(query, parameters).fetchall()

    def promises(self, query: str, parameters: Any) -> list[Row]:
        """The promises that the named query finds."""
        return [self._row(*found) for found in self.all(query, parameters)]

    def bare_promises(self, query: str, parameters: Any) -> list[Row]:
        """They without their large values: to end or forget one nobody has to read it, and it may be lost."""
        return [_bare(*found) for found in self.all(query, parameters)]

    def whole(self, bare: Row) -> Row | None:
        """It with its large values, if they can be read."""
        try:
            return self._filled(bare)
        except OF_A_VALUE:
            return None

    def promise(self, query: str, *parameters: object) -> Row | None:
        """The promise that the named query finds, if any."""
        found = self._run(query, parameters).fetchone()
        return None if found is None else self._row(*found)

    def find(self, id_: str) -> Row | None:
        """The promise of an id, if there is one."""
        recent = self.recents.get(id_)
        return self.promise("promise_by_id", id_) if recent is None else recent.row

    def find_to_settle(self, id_: str) -> Row | None:
        """As `find`; a request that cannot be read is empty, since no verdict needs it."""
        recent = self.recents.get(id_)
        if recent is not None:
            return recent.row
        found = self._run("promise_by_id", (id_,)).fetchone()
        return None if found is None else self._row(*found, lenient=True)

    def insert(self, promise: Promise, log: Sequence[bytes]) -> bool:
        """A new row, and the first events of its log; False if its id or key is taken, or was.

        That is seen at once only by a `careful` connection; else by the next `write`.
        """
        param, file = self._stored(promise.param)
        n = self._next_number()
        fields: list[object] = list(promise)
        fields[_PARAM] = param
        self._deferred.insert_promise(n, *fields, file)
        if self.careful and not self._try_write():
            return False
        if log:
            self.insert_events(n, 1, log)
        self.recents.made(Row(n, promise, (file, None)), len(log))
        return True

    def update(self, row: Row, promise: Promise) -> None:
        """What can change of a promise that is pending in its row."""
        value, file = self._stored(promise.value)
        fields = promise.state, value, promise.epoch, promise.version, promise.started_at, promise.settled_at, file
        self._deferred.update_promise(*fields, row.n)
        self.recents.changed(row, promise)

    def delete(self, row: Row) -> None:
        """A promise and its log."""
        self.dropped += [file for file in row.files if file]
        self.delete_events(row.n, 2**62)
        self._run("delete_promise", (row.n,))

    def log(self, id_: str) -> LogHead | None:
        """The log of a promise, if there is one of this id."""
        recent = self.recents.get(id_)
        if recent is not None:
            n, promise, _ = recent.row
            return LogHead(n, LogOwner(id_, promise.pending, promise.fence), Tail(0, recent.last))
        found = self._run("log_by_id", (id_,)).fetchone()
        if found is None:
            return None
        n, trimmed, last, state, epoch, version = found
        return LogHead(n, LogOwner(id_, state == PENDING, Fence(epoch, version)), Tail(trimmed, last))

    def children(self, id_: str) -> list[Row]:
        """Those of a promise that have no verdict, without their large values."""
        recent = self.recents.get(id_)
        return [] if recent is not None and not recent.parent else self.bare_promises("pending_children", (id_,))

    def trim(self, head: LogHead, upto: int) -> None:
        """Forget the events up to a number."""
        self.recents.forget(head.promise.id)
        self.delete_events(head.n, upto)
        self.all("set_trimmed", (upto, head.n))

    def append(self, head: LogHead, events: Sequence[bytes]) -> int:
        """New events at the end of a log; answers its last number."""
        last = head.tail.last + len(events)
        if events:
            self.insert_events(head.n, head.tail.last + 1, events)
            self.recents.logged(head.promise.id, last)
        return last

    def events(self, n: int, after: int, limit: int) -> Iterator[LoggedEvent]:
        """The events behind a number, each loaded when it is asked for."""
        for sequence, data, file in self._run("events_behind", (n, after, limit)):
            yield LoggedEvent(sequence, self._loaded(data, file))

    def insert_events(self, n: int, first: int, events: Sequence[bytes]) -> None:
        """New events, numbered from `first`."""
        self._deferred.insert_events([(n, first + number, *self._stored(data)) for number, data in enumerate(events)])

    def delete_events(self, n: int, upto: int) -> None:
        """The events up to a number."""
        self.dropped += [file for (file,) in self.all("event_files", (n, upto))]
        self._run("delete_events", (n, upto))

    def _next_number(self) -> int:
        if self._last is None:
            ((self._last,),) = self.all("last_promise")
        self._last += 1
        return self._last

    def _try_write(self) -> bool:
        try:
            self._deferred.write()
        except TakenError:
            return False
        return True

    def _run(self, query: str, parameters: Any) -> sqlite3.Cursor:
        self._deferred.write()
        return self.connection.execute(queries()[query], parameters)

    def _stored(self, data: bytes) -> tuple[bytes | None, str | None]:
        if len(data) <= INLINE_BYTES:
            return data, None
        file = self._blobs.put(data)
        self.written.append(file)
        return None, file

    def _loaded(self, data: bytes | None, file: str | None) -> bytes:
        return self._blobs.get(file) if file else data or b""

    def _row(self, n: int, *columns: Any, lenient: bool = False) -> Row:
        return self._filled(_bare(n, *columns), lenient=lenient)

    def _filled(self, row: Row, *, lenient: bool = False) -> Row:
        promise, (param_file, value_file) = row.promise, row.files
        if param_file or value_file:
            value = self._loaded(promise.value, value_file)
            # Whoever asks for a verdict needs no request, and shall have it also if that is lost.
            with suppress(*OF_A_VALUE if lenient or not promise.pending else ()):
                promise = promise._replace(param=self._loaded(promise.param, param_file))
            row = row._replace(promise=promise._replace(value=value))
        return row


def _bare(n: int, *columns: Any) -> Row:
    *fields, param_file, value_file = columns
    fields[_PARAM], fields[_VALUE] = fields[_PARAM] or b"", fields[_VALUE] or b""  # NULL if it has a file
    # In the order of the queries' columns, which is that of the dataclass.
    return Row(n, Promise(*fields), (param_file, value_file))
