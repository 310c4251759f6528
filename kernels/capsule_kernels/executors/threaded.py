"""Synchronous cells: plain code on the process's main thread, as in any interpreter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from capsule_kernels.executors.base import Piece, evaluate

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from capsule_kernels.loops import SessionLoop


class ThreadedExecutor:
    """Runs code directly; the session's loop is lent to it, so tasks may be made that go on after the cell."""

    def __init__(self, loop: SessionLoop) -> None:
        self._loop = loop

    def call(self, function: Callable[[], object]) -> None:
        """Call a function as the code of a cell."""
        with self._loop.lent():
            function()

    def run(self, pieces: Sequence[Piece], namespace: dict[str, Any]) -> None:
        """Run the pieces in order."""
        with self._loop.lent():
            for piece in pieces:
                value = evaluate(piece, namespace)
                if piece.show is not None:
                    piece.show(value)
