"""An event loop that is a function of its seed: virtual time, chance decides who is next, and processes can be killed.

Whatever waits is ready as soon as its time comes; of all that is ready one runs, and chance says which. When nothing is
ready the clock jumps to the next timer. Nothing here looks at the machine's clock, so a seed plays the same again.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Coroutine
from contextlib import suppress
from contextvars import Context, ContextVar, copy_context
from random import Random
from typing import Any

_process: ContextVar[Process | None] = ContextVar("process", default=None)


class Numbered(asyncio.Future[Any]):
    """A future whose place in a set does not depend on where in memory it is."""

    number = 0

    def __hash__(self) -> int:
        return self.number


class SimLoop(asyncio.SelectorEventLoop):
    """`before_step` is called with the number of each step, before it is taken."""

    def __init__(self, seed: int, before_step: Callable[[int], None]) -> None:
        super().__init__()
        self.chance = Random(seed)
        self.steps = 0
        self._before_step = before_step
        self._now = 0.0
        self._futures = 0
        self._tasks: list[asyncio.Task[Any]] = []
        self.set_task_factory(self._make_task)  # type: ignore[arg-type]  # typeshed knows of no context

    def time(self) -> float:
        return self._now

    def create_future(self) -> Numbered:
        future = Numbered(loop=self)
        self._futures += 1
        future.number = self._futures
        return future

    def _make_task(
        self, _loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any], context: Context | None = None
    ) -> asyncio.Task[Any]:
        task = asyncio.Task(coroutine, loop=self, name=f"task-{len(self._tasks)}", context=context)
        self._tasks.append(task)  # what is killed must not be collected: that would run its finally
        return task

    def _run_once(self) -> None:
        ready, timers = self._ready, self._scheduled  # type: ignore[attr-defined]  # those of asyncio's own loop
        if not ready and timers:
            self._now = max(self._now, timers[0].when())
        while timers and timers[0].when() <= self._now:
            timer = heapq.heappop(timers)
            timer._scheduled = False
            ready.append(timer)
        if not ready:
            raise RuntimeError("everybody waits, and nothing will ever happen")
        place = self.chance.randrange(len(ready))
        handle = ready[place]
        del ready[place]
        process = handle._context.get(_process)
        if handle.cancelled() or (process is not None and not process.alive):
            return
        self.steps += 1
        self._before_step(self.steps)
        if process is None or process.alive:
            handle._run()

    def end(self) -> list[str]:
        """Take down what was killed, tell nobody of it, and answer what has failed."""
        failed = []
        for task in self._tasks:
            if not task.done():
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                with suppress(RuntimeError):
                    task.get_coro().close()
            elif not task.cancelled() and task.exception() is not None:
                failed.append(repr(task.exception()))
        self.close()
        return failed


class Process:
    """Something that can be killed. From then on nothing of it runs, and no `finally` either."""

    def __init__(self, loop: SimLoop) -> None:
        self.alive = True
        self._loop = loop
        self._context = copy_context()
        self._context.run(_process.set, self)
        self._on_death: list[Callable[[], None]] = []

    def start(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        return self._loop.create_task(work, context=self._context)

    def when_it_dies(self, call: Callable[[], None]) -> None:
        """What others notice."""
        self._on_death.append(call)

    def kill(self) -> None:
        if self.alive:
            self.alive = False
            for call in self._on_death:
                call()
