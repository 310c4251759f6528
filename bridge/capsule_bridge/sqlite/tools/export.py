"""`capsule store export`: all of a store, as objects that say what they are.

It reads in parts, each in a transaction of its own: who reads slowly must not keep a node from cutting down its log.
So each promise is told as it was when its part was read, with its events up to the number that it had then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from capsule_bridge.sqlite.files import is_whole, values_path
from capsule_bridge.sqlite.tools.opening import reading, sql
from capsule_bridge.store import PAGE, READ_BYTES
from capsule_bridge.telling import FORMAT, decoded, plain

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from capsule_bridge.telling import Record


def export(path: Path, *, now: int, decode: bool = False) -> Iterator[Record]:
    """The records of a store: one `store`, then each `promise` followed by its `event`s, `tombstone`s, one `end`.

    Bytes are `{"base64": …}`; with `decode` they are `{"msgpack": …}` where they are such and JSON can hold them. A
    value whose file is lost is `{"missing": file}`, and one that is not what was written `{"damaged": file, "base64":
    …}`. Raises StoreError: `store_refused`, `store_unavailable`.
    """
    told = {"promise": 0, "event": 0, "tombstone": 0}
    with reading(path) as (connection, file):
        parts = _Parts(connection, values_path(file), decoded if decode else plain)
        schema = connection.execute("PRAGMA user_version").fetchone()[0]
        yield {"record": "store", "format": FORMAT, "schema": schema, "path": str(path), "at": now}
        for record in parts.records():
            told[record["record"]] += 1
            yield record
    # Without this line it is not all.
    yield {"record": "end", "promises": told["promise"], "events": told["event"], "tombstones": told["tombstone"]}


class _Parts:
    """A store, read in parts that fit into memory."""

    def __init__(self, connection: sqlite3.Connection, folder: Path, shown: Callable[[bytes], Record]) -> None:
        self._connection = connection
        self._folder = folder
        self._shown = shown

    def records(self) -> Iterator[Record]:
        """All but the first and the last."""
        after = 0
        while part := self._part("promises_behind", after):
            for promise in part:
                after = promise.pop("n")
                yield {"record": "promise"} | promise
                yield from self._events(after, promise)
        last = ""
        while part := self._part("tombstones_behind", last):
            for tombstone in part:
                last = tombstone["id"]
                yield {"record": "tombstone"} | tombstone

    def _events(self, n: int, promise: Record) -> Iterator[Record]:
        after, last = promise["first_event"] - 1, promise["last_event"]
        while after < last and (part := self._part("events_between", n, after, last)):
            for event in part:
                after = event["sequence"]
                yield {"record": "event", "promise": promise["id"]} | event

    def _part(self, query: str, *parameters: object) -> list[Record]:
        try:
            return list(self._read(query, parameters, lost=False))
        except FileNotFoundError:
            # Mostly its promise was forgotten between row and file. If not, the second look says so.
            return list(self._read(query, parameters, lost=True))

    def _read(self, query: str, parameters: tuple[object, ...], *, lost: bool) -> Iterator[Record]:
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
