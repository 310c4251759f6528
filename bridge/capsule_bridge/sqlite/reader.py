"""The thread that reads what is committed, so that long logs do not hold up the writer."""

from __future__ import annotations

import asyncio
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from capsule_bridge.sqlite.damage import store_error
from capsule_bridge.sqlite.files import LostValueError

if TYPE_CHECKING:
    from collections.abc import Callable

    from capsule_bridge.sqlite.rows import Rows

T = TypeVar("T")


class Reader:
    """Runs functions of `Rows`, each in one read transaction."""

    def __init__(self, connect: Callable[[], Rows]) -> None:
        self._connect = connect
        self._rows: Rows | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="capsule-store-reader")

    async def run(self, ask: Callable[[Rows], T]) -> T:
        """What the function answers. Raises StoreError: `store_unavailable`, `store_damaged`."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._run, ask)

    def stop(self) -> None:
        """Finish what was asked, then close the connection. Blocks."""
        self._thread.submit(self._drop)
        self._thread.shutdown()

    def _run(self, ask: Callable[[Rows], T]) -> T:
        try:
            return self._look(ask)
        except (sqlite3.Error, OSError) as error:
            self._drop()
            raise store_error(error, "the store cannot be read") from error

    def _look(self, ask: Callable[[Rows], T]) -> T:
        """Again if a large value went between its row and its file, because it was forgotten: it has no row then."""
        lost = None
        while True:
            try:
                return self._in_transaction(ask)
            except LostValueError as error:
                if error.filename == lost:
                    raise
                lost = error.filename

    def _in_transaction(self, ask: Callable[[Rows], T]) -> T:
        if self._rows is None:
            self._rows = self._connect()
        self._rows.connection.execute("BEGIN")
        try:
            return ask(self._rows)
        finally:
            self._rows.connection.rollback()

    def _drop(self) -> None:
        if self._rows is not None:
            with suppress(sqlite3.Error):
                self._rows.connection.close()
            self._rows = None
