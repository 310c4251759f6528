"""Cells that await at top level: one task on the session's own loop, on the main thread."""

from __future__ import annotations

import asyncio
import contextvars
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capsule_kernels.executors.base import Piece, evaluate

if TYPE_CHECKING:
    from collections.abc import Coroutine, Generator, Sequence

    from capsule_kernels.aside import AsideInterrupts
    from capsule_kernels.interrupts import Interrupts
    from capsule_kernels.loops import SessionLoop

_MISSING = object()
_BELOW = str(Path(asyncio.__file__).parent), __file__
"""Where the code is that waits for a cell."""


class AsyncExecutor:
    """Runs a cell as a task. While the task waits, an interrupt cancels it; while it runs, it raises in its code."""

    def __init__(self, loop: SessionLoop, interrupts: Interrupts | AsideInterrupts) -> None:
        self._loop = loop
        self._interrupts = interrupts

    def run(self, pieces: Sequence[Piece], namespace: dict[str, Any]) -> None:
        """Run the pieces in order, other tasks of the loop in between."""
        self._loop.wake_on_signals()
        context = contextvars.copy_context()
        task: asyncio.Task[BaseException | None] | None = None

        def cancel() -> None:
            if task is not None:
                self._loop.call_soon_threadsafe(task.cancel)

        # From here on nothing is raised, so no coroutine can get lost; what is asked before the first step, it sees.
        self._interrupts.cancel = cancel
        try:
            task = self._loop.create_task(self._step(_in_order(pieces, namespace)), name="cell", context=context)
            raised = self._finish(task)
        finally:
            if task is not None:
                task.cancel()  # nothing, once it has ended
            self._interrupts.cancel = None
        # The cell's own context is the thread's: what it set in context variables is there in the next cell.
        for variable, value in context.items():
            if variable.get(_MISSING) is not value:
                variable.set(value)
        if isinstance(raised, asyncio.CancelledError) and self._interrupts.asked:
            raise KeyboardInterrupt().with_traceback(where_it_waited(raised.__traceback__)) from None
        if raised is not None:
            raise raised

    def _finish(self, task: asyncio.Task[BaseException | None]) -> BaseException | None:
        """Run the loop until the task has ended; another task's SystemExit or KeyboardInterrupt ends only that task."""
        while True:
            try:
                return self._loop.run_until_complete(task)
            except (KeyboardInterrupt, SystemExit):
                if task.done():
                    raise

    async def _step(self, cell: Coroutine[Any, Any, None]) -> BaseException | None:
        """The guarded cell as a coroutine proper: since Python 3.12 a task takes nothing else."""
        return await self._guard(cell)

    @types.coroutine
    def _guard(self, cell: Coroutine[Any, Any, None]) -> Generator[Any, Any, BaseException | None]:
        """Steps the cell; the answer is what it raised, so that nothing (SystemExit!) passes through the loop."""
        error: BaseException | None = KeyboardInterrupt() if self._interrupts.asked else None
        value: Any = None
        while True:
            cancel, self._interrupts.cancel = self._interrupts.cancel, None
            try:
                yielded = cell.send(value) if error is None else cell.throw(error)
            except StopIteration:
                return None
            except BaseException as raised:  # noqa: BLE001  # it is handed over, not swallowed
                return raised
            finally:
                self._interrupts.cancel = cancel
            value, error = None, None
            try:
                value = yield yielded
            except BaseException as thrown:  # noqa: BLE001  # it is thrown into the cell
                error = thrown


async def _in_order(pieces: Sequence[Piece], namespace: dict[str, Any]) -> None:
    for piece in pieces:
        value = evaluate(piece, namespace)
        if piece.is_async:
            value = await value
        if piece.show is not None:
            piece.show(value)


def where_it_waited(frames: types.TracebackType | None) -> types.TracebackType | None:
    """The traceback to the line that waited. Below that stands how asyncio waits, which costs long to show."""
    kept: list[types.TracebackType] = []
    while frames is not None:
        kept.append(frames)
        frames = frames.tb_next
    while kept and kept[-1].tb_frame.f_code.co_filename.startswith(_BELOW):
        kept.pop()
    for frame in reversed(kept):
        frames = types.TracebackType(frames, frame.tb_frame, frame.tb_lasti, frame.tb_lineno)
    return frames
