"""The inputs of a session, and those of earlier ones where it has a history file: IPython's own, of the same form."""

from __future__ import annotations

import sys
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from IPython.core.history import HistoryAccessor, HistoryManager

if TYPE_CHECKING:
    from collections.abc import Iterable

    from capsule_kernels.shell import ZMQInteractiveShell

LOCK_TIMEOUT = 1.0
"""Seconds that another kernel may keep the file locked; IPython's 5 would hold up the session."""
TAIL = 10
"""Entries in an answer if nobody says how many."""


class SessionHistory(HistoryManager):  # type: ignore[misc]  # IPython is untyped
    """IPython's own, which without a file finds what `In` has: `%history -g`, `%rerun` and `%recall` ask it."""

    def get_tail(self, n: int | None = TAIL, *arguments: Any, **options: Any) -> Iterable[Any]:
        """The last inputs; without the one that asks, unless `include_latest` says so."""
        if self.enabled:
            found: Iterable[Any] = super().get_tail(n, *arguments, **options)
            return found
        return self._tail(n, *arguments, **options)

    def search(self, pattern: str = "*", *arguments: Any, **options: Any) -> Iterable[Any]:
        """The inputs that fit a pattern of a shell's."""
        if self.enabled:
            found: Iterable[Any] = super().search(pattern, *arguments, **options)
            return found
        return self._search(pattern, *arguments, **options)

    def _tail(
        self, n: int | None = TAIL, raw: bool = True, output: bool = False, include_latest: bool = False
    ) -> list[Any]:
        found = [entry for entry in self.get_range(raw=raw, output=output) if entry[2]]
        if not include_latest:
            del found[-1:]
        return found[-(n or TAIL) :]

    def _search(
        self,
        pattern: str,
        raw: bool = True,
        search_raw: bool = True,
        output: bool = False,
        n: int | None = None,
        unique: bool = False,
    ) -> list[Any]:
        found = _matching(self.get_range(raw=search_raw, output=output), pattern, unique=unique)
        if raw != search_raw:
            shown = {line: entry for _, line, entry in self.get_range(raw=raw, output=output)}
            found = [(session, line, shown[line]) for session, line, _ in found]
        return found[-n:] if n else found


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
        elif body.get("n") == 0:
            entries = ()
        elif self.has_file:
            entries = self._ask_file(kind, body, raw=raw, output=output)
        else:
            n = body.get("n") or TAIL
            if kind == "search":
                pattern, unique = body.get("pattern") or "*", body.get("unique", False)
                entries = self._manager.search(pattern, raw=raw, search_raw=raw, output=output, n=n, unique=unique)
            else:
                entries = self._manager.get_tail(n, raw=raw, output=output, include_latest=True)
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
        owner = HistoryAccessor if name == "get_range" else HistoryManager  # else it would call the guarded one
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
    found = [entry for entry in entries if entry[2] and fnmatchcase(_source(entry), pattern)]
    if not unique:
        return found
    last = {_source(entry): entry for entry in found}
    return [entry for entry in found if last[_source(entry)] is entry]


def _source(entry: Any) -> str:
    """The input of an entry, which may have its output beside it."""
    return str(entry[2][0] if isinstance(entry[2], tuple) else entry[2])


def _plain(entry: Any) -> Any:
    return list(entry) if isinstance(entry, tuple) else entry
