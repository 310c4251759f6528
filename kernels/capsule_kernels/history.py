"""The inputs of a session, and those of earlier ones where it has a history file: IPython's own, of the same form."""

from __future__ import annotations

import sys
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from IPython.core.history import HistoryAccessor

if TYPE_CHECKING:
    from collections.abc import Iterable

    from capsule_kernels.shell import ZMQInteractiveShell

LOCK_TIMEOUT = 1.0
"""Seconds that another kernel may keep the file locked; IPython's 5 would hold up the session."""
TAIL = 10
"""Entries in an answer if nobody says how many."""


class History:
    """That of one shell. Without a file it is what `In` has, and this session is number 1."""

    def __init__(self, shell: ZMQInteractiveShell) -> None:
        self._manager = shell.history_manager
        self._shown: dict[int, None] = {}
        self._error: type[Exception] = OSError
        self.has_file = False

    def open(self, path: str) -> None:
        """Keep inputs in this file from now on. Raises OSError. No thread writes it: a fork could not take it along."""
        import sqlite3  # no session needs it that keeps no history

        manager = self._manager
        manager.connection_options = {"check_same_thread": False, "timeout": LOCK_TIMEOUT}
        manager.hist_file = Path(path)
        manager.enabled = True
        try:
            self._plainly("init_db")
            manager.new_session()
        except sqlite3.Error as error:
            manager.enabled = False
            raise OSError(f"the history file {path} cannot be used: {error}") from error
        self._error = sqlite3.Error
        self.has_file = True

    def add(self, count: int, source: str, raw: str) -> None:
        """Note the input of a cell, for `write`."""
        self._manager.db_input_cache.append((count, source.rstrip("\n"), raw.rstrip("\n")))
        if self._manager.db_log_output:
            self._shown[count] = None

    def write(self) -> None:
        """Write what was noted. What the file does not take is not kept, and told on stderr."""
        manager = self._manager
        if len(manager.db_input_cache) < manager.db_cache_size:
            return
        self._write()

    def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        """The answer to `history`."""
        kind, raw, output = body.get("kind", "tail"), body.get("raw", True), body.get("output", False)
        if kind == "range":
            entries = self._range(body.get("session", 0), body.get("start") or 1, body.get("stop"), raw, output)
        elif self.has_file:
            entries = self._ask_file(kind, body, raw=raw, output=output)
        else:
            entries = (entry for entry in self._range(0, 1, None, raw, output) if entry[2])
            if kind == "search":
                entries = _matching(entries, body.get("pattern") or "*", unique=body.get("unique", False))
            entries = list(entries)[-(body.get("n") or TAIL) :]
        number = self._number
        return {"entries": [[session or number, line, _plain(entry)] for session, line, entry in entries]}

    @property
    def _number(self) -> int:
        return self._manager.session_number or 1

    def _range(self, session: int, start: int, stop: int | None, raw: bool, output: bool) -> Iterable[Any]:
        number = session if session > 0 else session + self._number
        if number == self._number:
            found: Iterable[Any] = self._manager.get_range(0, start, stop, raw=raw, output=output)
        elif self.has_file and number > 0:
            found = self._plainly("get_range", number, start, stop, raw=raw, output=output)
        else:
            found = ()
        return found

    def _ask_file(self, kind: str, body: dict[str, Any], *, raw: bool, output: bool) -> Iterable[Any]:
        self._write()
        n = body.get("n") or (TAIL if kind == "tail" else None)
        if kind == "tail":
            found: Iterable[Any] = self._plainly("get_tail", n, raw=raw, output=output, include_latest=True)
        else:
            pattern, unique = body.get("pattern") or "*", body.get("unique", False)
            found = self._plainly("search", pattern, raw=raw, output=output, n=n, unique=unique)
        return found

    def _plainly(self, name: str, *arguments: Any, **options: Any) -> Any:
        """Call a method of the manager's without its guard, which moves a file out of the way that is only locked."""
        owner = HistoryAccessor if name == "get_range" else type(self._manager)  # else it would call the guarded one
        method = getattr(owner, name)
        return getattr(method, "__wrapped__", method)(self._manager, *arguments, **options)

    def _write(self) -> None:
        manager = self._manager
        for count in self._shown:
            manager.store_output(count)
        self._shown.clear()
        try:
            manager.writeout_cache()
        except self._error as error:
            with suppress(ValueError):  # the user has closed it
                print(f"the history is not written: {error}", file=sys.stderr)


def _matching(entries: Iterable[Any], pattern: str, *, unique: bool) -> list[Any]:
    found = [entry for entry in entries if fnmatchcase(str(_plain(entry[2])), pattern)]
    if not unique:
        return found
    last = {str(_plain(entry[2])): entry for entry in found}
    return [entry for entry in found if last[str(_plain(entry[2]))] is entry]


def _plain(entry: Any) -> Any:
    return list(entry) if isinstance(entry, tuple) else entry
