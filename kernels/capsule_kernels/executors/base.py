"""What an executor is given and what it does with it."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import CodeType


class Piece(NamedTuple):
    """A part of a cell: its code, and whom to show its value (None: a statement, or nobody)."""

    code: CodeType
    show: Callable[[Any], None] | None

    @property
    def is_async(self) -> bool:
        """Whether evaluating the code gives a coroutine: it awaits at top level."""
        return bool(self.code.co_flags & inspect.CO_COROUTINE)


class Executor(Protocol):
    """Runs the pieces of a cell in order, on the main thread; what the code raises is raised here."""

    def run(self, pieces: Sequence[Piece], namespace: dict[str, Any]) -> None:
        """Run until the last piece has ended."""


def evaluate(piece: Piece, namespace: dict[str, Any]) -> Any:
    """Run the code once; for an async piece the answer is its coroutine."""
    return eval(piece.code, namespace)  # noqa: S307  # running code is what a worker is for
