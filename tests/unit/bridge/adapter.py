"""As much of a connection of `sqlite3` as the store uses, over apsw, which lets a test see what goes to the disk."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apsw

_FLAGS = {
    "rwc": apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE,
    "ro": apsw.SQLITE_OPEN_READONLY,
}


@contextmanager
def _errors_of_sqlite3() -> Iterator[None]:
    try:
        yield
    except apsw.Error as error:
        failure = sqlite3.OperationalError(str(error))
        failure.sqlite_errorcode = getattr(error, "result", sqlite3.SQLITE_ERROR)
        raise failure from error


class Cursor:
    """All rows of a query."""

    def __init__(self, rows: Iterable[Any], lastrowid: int, rowcount: int) -> None:
        self.lastrowid = lastrowid
        self.rowcount = rowcount
        self._rows = iter(rows)

    def __iter__(self) -> Iterator[Any]:
        return self._rows

    def fetchone(self) -> Any:
        return next(self._rows, None)

    def fetchall(self) -> list[Any]:
        return list(self._rows)


class Connection:
    """A connection to `path` through the VFS of this name."""

    def __init__(self, path: Path, mode: str, vfs: str) -> None:
        with _errors_of_sqlite3():
            self._apsw = apsw.Connection(str(path), flags=_FLAGS[mode], vfs=vfs)

    @property
    def in_transaction(self) -> bool:
        return self._apsw.in_transaction

    def execute(self, query: str, parameters: Any = ()) -> Cursor:
        with _errors_of_sqlite3():
            rows = list(self._apsw.execute(query, parameters))
            return Cursor(rows, self._apsw.last_insert_rowid(), self._apsw.changes())

    def executemany(self, query: str, rows: Any) -> None:
        with _errors_of_sqlite3():
            self._apsw.executemany(query, rows)

    def executescript(self, script: str) -> None:
        self.execute(script)

    def set_progress_handler(self, handler: Callable[[], bool], steps: int) -> None:
        self._apsw.set_progress_handler(handler, steps)

    def interrupt(self) -> None:
        self._apsw.interrupt()

    def rollback(self) -> None:
        if self.in_transaction:
            self.execute("ROLLBACK")

    def close(self) -> None:
        with _errors_of_sqlite3():
            self._apsw.close()
