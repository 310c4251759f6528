"""`capsule store export`: all of a store, as objects that say what they are.

It reads in parts, each in a transaction of its own: who reads slowly must not keep a node from cutting down its log.
So each promise is told as it was when its part was read, with its events up to the number that it had then.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

from capsule_bridge.sqlite.files import is_whole, values_path
from capsule_bridge.sqlite.tools.opening import reading, sql
from capsule_bridge.sqlite.tools.salvage import Lost, check_damage, readable
from capsule_bridge.store import PAGE, READ_BYTES
from capsule_bridge.telling import FORMAT, decoded, plain
from capsule_protocol.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from capsule_bridge.telling import Record


def export(path: Path, *, now: int, decode: bool = False) -> Iterator[Record]:
    """The records of a store: one `store`, then each `promise` followed by its `event`s, `tombstone`s, one `end`.

    Bytes are `{"base64": …}`; with `decode` they are `{"msgpack": …}` where they are such and JSON can hold them. A
    value whose file is lost is `{"missing": file}`, and one that is not what was written `{"damaged": file, "base64":
    …}`. What cannot be read is passed over, and a `lost` record says where that was; then there is no `end`, and
    StoreError `store_damaged` is raised instead. Raises StoreError: `store_refused`, `store_unavailable`.
    """
    told = {"promise": 0, "event": 0, "tombstone": 0, "lost": 0}
    with reading(path) as (connection, file):
        parts = _Parts(connection, values_path(file), decoded if decode else plain)
        schema = connection.execute("PRAGMA user_version").fetchone()[0]
        yield {"record": "store", "format": FORMAT, "schema": schema, "path": str(path), "at": now}
        for record in parts.records():
            told[record["record"]] += 1
            yield record
    if told["lost"]:
        text = f"{told['lost']} parts of the store {path} cannot be read; all others were written out"
        raise StoreError("store_damaged", text, hint="The records `lost` say where they are.")
    # Without this line it is not all.
    yield {"record": "end", "promises": told["promise"], "events": told["event"], "tombstones": told["tombstone"]}


LAST_NAME = "\U0010ffff"
"""No id comes behind it."""


class _Parts:
    """A store, read in parts that fit into memory."""

    def __init__(self, connection: sqlite3.Connection, folder: Path, shown: Callable[[bytes], Record]) -> None:
        self._connection = connection
        self._folder = folder
        self._shown = shown

    def records(self) -> Iterator[Record]:
        """All but the first and the last."""
        for promise in readable(self._promises, "n", 0, None, self._last_promise):
            if isinstance(promise, Lost):
                yield {"record": "lost", "what": "promise"} | promise._asdict()
                continue
            number = promise.pop("n")
            yield {"record": "promise"} | promise
            yield from self._events(number, promise)
        yield from self._tombstones()

    def _promises(self, after: int, upto: int) -> Iterator[Record]:
        try:
            yield from self._rows("promises_between", "n", after, upto)
        except sqlite3.DatabaseError as error:
            if upto - after != 1:
                raise
            check_damage(error)
            yield from self._rows("promises_alone", "n", after, upto)  # it may be its events that are damaged

    def _last_promise(self) -> int | None:
        """The highest number, of those that indexes have if the table does not say."""
        numbers = [self._number(f"last_{of}_promise") for of in ("pending", "settled")]
        return self._number("last_promise") or max((number for number in numbers if number), default=None)

    def _events(self, n: int, promise: Record) -> Iterator[Record]:
        last = promise["last_event"]

        def read(after: int, upto: int) -> Iterator[Record]:
            return self._rows("events_between", "sequence", n, after, upto, at=1)

        if last is None or promise["first_event"] <= last:
            for event in readable(read, "sequence", promise["first_event"] - 1, last, None):
                if isinstance(event, Lost):
                    yield {"record": "lost", "what": "event", "promise": promise["id"]} | event._asdict()
                else:
                    yield {"record": "event", "promise": promise["id"]} | event

    def _tombstones(self) -> Iterator[Record]:
        """From the first on, and if that does not go to the end, from the last back: names cannot be halved."""
        after, before = "", None
        try:
            for tombstone in self._rows("tombstones_behind", "id", after):
                after = tombstone["id"]
                yield {"record": "tombstone"} | tombstone
        except sqlite3.DatabaseError as error:
            check_damage(error)
            try:
                for tombstone in self._rows("tombstones_before", "id", after, LAST_NAME, at=1):
                    before = tombstone["id"]
                    yield {"record": "tombstone"} | tombstone
            except sqlite3.DatabaseError as other:
                check_damage(other)
            yield {"record": "lost", "what": "tombstone", "after": after, "before": before}

    def _rows(self, query: str, key: str, *parameters: object, at: int = 0) -> Iterator[Record]:
        """All rows of a query, in parts: the next one begins behind the last row's key, which is parameter `at`."""
        given = list(parameters)
        while part := self._part(query, given):
            given[at] = part[-1][key]
            yield from part

    def _number(self, query: str) -> int | None:
        try:
            found: int | None = self._connection.execute(sql(query)).fetchone()[0]
        except sqlite3.DatabaseError as error:
            check_damage(error)
            return None
        return found

    def _part(self, query: str, parameters: Sequence[object]) -> list[Record]:
        try:
            return self._read_all(query, parameters, lost=False)
        except FileNotFoundError:
            # Mostly its promise was forgotten between row and file. If not, the second look says so.
            return self._read_all(query, parameters, lost=True)

    def _read_all(self, query: str, parameters: Sequence[object], *, lost: bool) -> list[Record]:
        """Rows up to one that cannot be read; if that is the first, its error."""
        found: list[Record] = []
        try:
            for record in self._read(query, parameters, lost=lost):
                found.append(record)  # noqa: PERF402  what was read before an error counts
        except (sqlite3.DatabaseError, TypeError):
            if not found:
                raise
        return found

    def _read(self, query: str, parameters: Sequence[object], *, lost: bool) -> Iterator[Record]:
        """Rows of one query, up to the one that makes them large: a statement is a transaction."""
        cursor = self._connection.execute(sql(query), (*parameters, PAGE))
        names = [column[0] for column in cursor.description]
        size = 0
        try:
            for row in cursor:
                record = dict(zip(names, row, strict=True))
                for name in [name for name in names if f"{name}_file" in record]:
                    data = self._data(record[name], file := record.pop(f"{name}_file"), lost=lost)
                    record[name] = self._told(data, file)
                    size += len(data or b"")
                if "fingerprint" in record:
                    record["fingerprint"] = plain(record["fingerprint"])
                yield record
                if size >= READ_BYTES:
                    return
        finally:
            cursor.close()

    def _told(self, data: bytes | None, file: str | None) -> Record:
        if data is None:
            return {"missing": file}
        if file is not None and not is_whole(file, data):
            return {"damaged": file} | plain(data)
        return self._shown(data)

    def _data(self, data: bytes | None, file: str | None, *, lost: bool) -> bytes | None:
        """What the row holds or its file; None if that is lost, and may be."""
        if file is None:
            return data or b""
        try:
            return (self._folder / file).read_bytes()
        except FileNotFoundError:
            if lost:
                return None
            raise
