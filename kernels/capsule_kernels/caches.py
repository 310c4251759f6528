"""Bounds on what an interactive shell keeps for ever: sources of cells, inputs, outputs."""

from __future__ import annotations

import linecache
from collections import deque
from typing import Any


class SourceCache:
    """Keeps the sources of the last cells, so that tracebacks show them; older ones are forgotten."""

    def __init__(self, shell: Any, bound: int) -> None:
        self._shell = shell
        self._bound = max(1, bound)
        self._names: deque[str] = deque()

    def add(self, name: str) -> None:
        """Note a source that the shell's compiler has cached."""
        self._names.append(name)
        if len(self._names) > self._bound:
            self._forget(self._names.popleft())

    def _forget(self, name: str) -> None:
        linecache.cache.pop(name, None)
        getattr(linecache, "_interactive_cache", {}).pop(name, None)
        self._shell.compile._filename_map.pop(name, None)  # noqa: SLF001  # nothing else empties it
        self._shell.compile.names.pop(name, None)


class InputCache:
    """Keeps the inputs of the last cells in `In` and `_i…`; older ones become empty strings, numbers stay right."""

    def __init__(self, shell: Any, bound: int) -> None:
        self._shell = shell
        self._bound = max(1, bound)
        history = shell.history_manager
        self._lists = history.input_hist_parsed, history.input_hist_raw
        self._last = ""
        self._outputs = history.outputs, history.output_hist_reprs, history.exceptions

    def add(self, count: int, source: str, raw: str) -> None:
        """Note the input of a cell in `In` and `_i<count>`; those before it are `_i`, `_ii`, `_iii`.

        No database, so no locks and no thread.
        """
        names = self._shell.user_ns
        raw = raw.rstrip("\n")
        for inputs, text in zip(self._lists, (source.rstrip("\n"), raw), strict=True):
            inputs.append(text)
        last, before = names.get("_i", ""), names.get("_ii", "")
        names.update({"_i": self._last, "_ii": last, "_iii": before, f"_i{count}": raw})
        self._last = raw
        self._forget(count - self._bound)

    def _forget(self, count: int) -> None:
        if count <= 0:
            return
        for inputs in self._lists:
            if count < len(inputs):
                inputs[count] = ""
        for kept in self._outputs:
            kept.pop(count, None)
        self._shell.user_ns.pop(f"_i{count}", None)
