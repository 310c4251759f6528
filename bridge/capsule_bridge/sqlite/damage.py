"""Whether the database is whole: asked in the background after an unclean end, and of each error of SQLite."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing, suppress
from typing import TYPE_CHECKING

from capsule_bridge.sqlite.connect import open_reader
from capsule_bridge.sqlite.files import OF_A_VALUE
from capsule_protocol.errors import StoreError

if TYPE_CHECKING:
    from pathlib import Path

LINES = 5
"""Of all that is wrong so much is told."""
STEPS = 1_000
"""Of SQLite's machine, between two looks whether to go on."""
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


def damage(connection: sqlite3.Connection, pragma: str = "quick_check") -> list[str]:
    """What SQLite finds wrong with the file, in its words; nothing if it is whole."""
    try:
        found = [str(row[0]) for row in connection.execute(f"PRAGMA {pragma}({LINES})")]
    except sqlite3.DatabaseError as error:
        if not _tells_damage(error):
            raise
        return [str(error)]
    return [] if found == ["ok"] else [line for text in found for line in text.splitlines()][:LINES]


def store_error(error: Exception, what: str) -> StoreError:
    """What an error of SQLite, or of a file, means for a store: `store_damaged`, or `store_unavailable`."""
    return StoreError("store_damaged" if _tells_damage(error) else "store_unavailable", f"{what}: {error}")


def unclean(path: Path) -> bool:
    """Whether the store was left without being closed: closing copies the whole log into the database."""
    with suppress(FileNotFoundError):
        return path.with_name(f"{path.name}-wal").stat().st_size > 0
    return False


class Examination:
    """Looks at the whole file once, on a thread of its own: a store that is large must not start late for it.

    It only reads. Until it is over the log of the database cannot be cut down, and grows.
    """

    def __init__(self, path: Path) -> None:
        self.found: StoreError | None = None
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._guard = threading.Lock()  # a closed connection must not be interrupted
        self._stopped = False
        self._thread = threading.Thread(target=self._look, name="capsule-store-check", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Until it is over. Blocks."""
        self._thread.join()

    def stop(self) -> None:
        """End it, wherever it is. Blocks for a moment."""
        self._stopped = True
        with self._guard:
            if self._connection is not None:
                self._connection.interrupt()
        self._thread.join()

    def _look(self) -> None:
        # What cannot be read now is no damage: whoever reads next hears of it. Nor is being stopped.
        with suppress(sqlite3.Error), closing(open_reader(self._path)) as connection:
            # An interruption is lost on a statement that is about to begin; this alone may not be asked for seconds.
            connection.set_progress_handler(lambda: self._stopped, STEPS)
            self._let_interrupt(connection)
            try:
                wrong = damage(connection)
            finally:
                self._let_interrupt(None)
            if wrong:
                text = f"the store {self._path} is damaged since its last node ended: {'; '.join(wrong)}"
                self.found = StoreError("store_damaged", text)

    def _let_interrupt(self, connection: sqlite3.Connection | None) -> None:
        with self._guard:
            self._connection = connection


def _tells_damage(error: Exception) -> bool:
    if isinstance(error, OF_A_VALUE):
        return True
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in _DAMAGED  # the rest of the bits only say where
