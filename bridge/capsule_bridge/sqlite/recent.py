"""What the writing connection has just written of promises: to settle one of these, nothing has to be looked up.

There is one writing connection, and nobody else has the file, so these are the rows as they are in its transaction.
Connections that only read keep none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from capsule_bridge.records import Promise

KEPT = 2_048
"""Promises without a verdict of which this is known; the oldest are looked up again."""
KEPT_BYTES = 4_096
"""One whose request is larger is looked up."""


class Row(NamedTuple):
    """A promise with what only the store knows of it: its number and its files."""

    n: int
    promise: Promise
    files: tuple[str | None, str | None]


@dataclass(slots=True)
class Recent:
    """A pending promise that was made over this connection: its row, its log's last number, if it has had children."""

    row: Row
    last: int
    parent: bool = False


class Recents:
    """Those of one connection. Whoever changes a row, or its log, says so here."""

    def __init__(self) -> None:
        self._kept: dict[str, Recent] = {}

    def get(self, id_: str) -> Recent | None:
        """What is known of it, if it is."""
        return self._kept.get(id_)

    def made(self, row: Row, last: int) -> None:
        """A new row."""
        promise = row.promise
        if promise.parent is not None and (parent := self._kept.get(promise.parent)) is not None:
            parent.parent = True
        if not promise.pending or len(promise.param) > KEPT_BYTES:
            return
        self._kept[promise.id] = Recent(row, last)
        if len(self._kept) > KEPT:
            del self._kept[next(iter(self._kept))]

    def changed(self, row: Row, promise: Promise) -> None:
        """The row has this promise from now on. With its verdict it is as good as never asked for again."""
        recent = self._kept.get(promise.id)
        if recent is not None:
            if promise.pending:
                recent.row = row._replace(promise=promise)
            else:
                del self._kept[promise.id]

    def logged(self, id_: str, last: int) -> None:
        """Its log ends with this number now."""
        recent = self._kept.get(id_)
        if recent is not None:
            recent.last = last

    def forget(self, id_: str) -> None:
        """It has to be looked up."""
        self._kept.pop(id_, None)

    def clear(self) -> None:
        """What was written may not be there: the transaction was rolled back."""
        self._kept.clear()
