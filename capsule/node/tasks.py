"""An owner of tasks: none is lost, and closing waits for all. Unlike a task group it may be closed by any task."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

from anyio import CancelScope

from capsule_protocol.errors import SessionError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

T = TypeVar("T")


class Tasks:
    """What it runs goes on when the one who asked is cancelled, so that nothing is left half done."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run it as a task of this owner."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def run_or_undo(self, work: Coroutine[Any, Any, T], undo: Callable[[T], Awaitable[None]]) -> T:
        """Run it; when the caller is cancelled, cancel it and wait until nothing of it is left."""
        task = self.start(work)
        try:
            return await result_of(task)
        except asyncio.CancelledError:
            task.cancel()
            with CancelScope(shield=True):
                await asyncio.wait([task])
                if not task.cancelled() and task.exception() is None:
                    await undo(task.result())
            raise

    async def close(self) -> None:
        """Cancel what still runs and wait for it. Idempotent."""
        running = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)


async def result_of(task: asyncio.Task[T]) -> T:
    """Wait for a task that goes on when the caller is cancelled; SessionError if its owner has stopped it."""
    try:
        await asyncio.wait([task])
    except asyncio.CancelledError:
        task.add_done_callback(_look)
        raise
    if task.cancelled():
        raise SessionError("session_closed", "it was closed before this was done")
    return task.result()


def _look(task: asyncio.Task[Any]) -> None:
    """Nobody is left to be told of its failure."""
    if not task.cancelled():
        task.exception()
