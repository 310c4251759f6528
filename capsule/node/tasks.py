"""An owner of tasks: none is lost, and closing waits for all. Unlike a task group it may be closed by any task."""

from __future__ import annotations

import asyncio
from functools import partial
from types import coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from anyio import CancelScope

from capsule_protocol.errors import SessionError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Generator

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

    def start_now(self, work: Coroutine[Any, Any, None]) -> None:
        """Run it up to where it first waits, and only from there on as a task: a busy loop's next turn may be far away.

        Up to there it is part of the caller: it must not ask for its task, nor set a time limit.
        """
        try:
            awaited = work.send(None)
        except StopIteration:
            return
        rest = _go_on(work, awaited)
        rest.send(None)  # a task that is cancelled before its first turn would not even begin it
        self.start(rest)

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

    async def done(self) -> None:
        """Wait until nothing runs any more."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def close(self) -> None:
        """Cancel what still runs and wait for it. Idempotent."""
        running = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)


async def _go_on(work: Coroutine[Any, Any, None], awaited: Any) -> None:
    await _rest(work, awaited)


@coroutine
def _rest(work: Coroutine[Any, Any, None], awaited: Any) -> Generator[Any, Any, None]:
    """What is left of work that has begun. In its first turn the task learns what the work waits for."""
    step: Callable[[], Any] = iter((awaited,)).__next__
    waiting = None
    while True:
        try:
            yield waiting
        except GeneratorExit:
            work.close()
            raise
        except BaseException as error:  # noqa: BLE001 - for the work to deal with
            step = partial(work.throw, error)
        try:
            waiting = step()
        except StopIteration:
            return
        step = partial(work.send, None)


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
