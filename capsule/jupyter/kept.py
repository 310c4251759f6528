"""What the cells of a kernel have shown, for a page that was not there: `%capsule output` shows it again.

Jupyter's server passes on what comes while a page has only lost its connection. A page that was closed and is opened
again has lost it, and asks nobody for it.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from capsule.jupyter.translate import Shown
from capsule.wire import weight

if TYPE_CHECKING:
    from collections.abc import Iterator

BOUND: Final = 16 * 2**20
"""Bytes that are kept of one kernel, about; what is oldest goes first."""
LARGEST: Final = BOUND // 4
"""Bytes that are kept of one cell; what follows is counted."""
_SHOWN: Final = frozenset({"stream", "display_data", "execute_result", "error"})


@dataclass(slots=True)
class _Cell:
    """What one cell has shown so far, as a page would have it."""

    shown: list[Shown] = field(default_factory=list)
    size: int = 0
    left_out: int = 0
    clear_next: bool = False


class Kept:
    """By the number of the cell, the oldest first."""

    def __init__(self) -> None:
        self._cells: OrderedDict[int, _Cell] = OrderedDict()
        self._size = 0

    @property
    def numbers(self) -> list[int]:
        """The cells of which something is kept."""
        return list(self._cells)

    def begin(self, number: int) -> None:
        """A cell starts; one that had its number is forgotten."""
        self._forget(number)
        self._cells[number] = _Cell()

    def clear(self) -> None:
        """Another session counts anew."""
        self._cells.clear()
        self._size = 0

    def add(self, number: int, told: Shown) -> None:
        """A cell shows this."""
        cell = self._cells.get(number)
        if told.kind == "update_display_data":
            self._update(told)
        elif cell is None:
            return
        elif told.kind == "clear_output":
            cell.clear_next = bool(told.content["wait"])
            if not cell.clear_next:
                self._empty(cell)
        elif told.kind in _SHOWN:
            if cell.clear_next:
                self._empty(cell)
            self._keep(cell, told)

    def again(self, number: int) -> Iterator[Shown]:
        """What a cell has shown, to be shown once more: its value is no longer that of the cell that asks."""
        cell = self._cells[number]
        for told in cell.shown:
            if told.kind == "execute_result":
                data, metadata = told.content["data"], told.content["metadata"]
                yield Shown("display_data", {"data": data, "metadata": metadata, "transient": {}})
            else:
                yield told
        if cell.left_out:
            text = f"… and {cell.left_out} bytes more, of which nothing is kept\n"
            yield Shown("stream", {"name": "stderr", "text": text})

    # --- inside ---

    def _keep(self, cell: _Cell, told: Shown) -> None:
        size = weight(told.content)
        if cell.size + size > LARGEST:
            cell.left_out += size
            return
        cell.size += size
        self._size += size
        last = cell.shown[-1] if cell.shown else None
        if told.kind == "stream" and last is not None and last.content.get("name") == told.content["name"]:
            last.content["text"] += told.content["text"]
        else:
            cell.shown.append(told._replace(content=dict(told.content)))
        while self._size > BOUND:
            self._forget(next(iter(self._cells)))

    def _update(self, told: Shown) -> None:
        """What was shown under its name, in any cell, changes; its size is taken to be what it was."""
        name = told.content["transient"].get("display_id")
        for cell in self._cells.values():
            for one in cell.shown:
                if name is not None and one.content.get("transient", {}).get("display_id") == name:
                    one.content.update(data=told.content["data"], metadata=told.content["metadata"])

    def _empty(self, cell: _Cell) -> None:
        self._size -= cell.size
        cell.shown.clear()
        cell.size, cell.left_out, cell.clear_next = 0, 0, False

    def _forget(self, number: int) -> None:
        cell = self._cells.pop(number, None)
        if cell is not None:
            self._size -= cell.size
