"""An event loop in a thread of its own: a busy node does not hold up the store, and several loops may use it."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from capsule_bridge.postgres.jobs import Call, deliver

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from concurrent.futures import Future

T = TypeVar("T")


class StoreLoop:
    """Runs coroutines for callers in other threads, until it is ended."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._serve, name="capsule-store", daemon=True)
        self._thread.start()

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Begin it, for whoever waits by thread or by loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def call(self, function: Callable[..., object], *arguments: object) -> None:
        """Do this there, unless it has ended."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function, *arguments)

    def begin(self, work: Callable[[], Coroutine[Any, Any, T]]) -> asyncio.Future[T]:
        """Begin it, for whoever waits in the running loop. If he is canceled it goes on, and nobody hears of it."""
        loop = asyncio.get_running_loop()
        call = Call(loop, loop.create_future())
        self._loop.call_soon_threadsafe(self._begin, work, call)
        return call.future

    async def finish(self) -> None:
        """Wait for what has been begun."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    def end(self) -> None:
        """Let the thread end, from any thread."""
        self.call(self._loop.stop)

    def join(self) -> None:
        """Wait until it has ended."""
        self._thread.join()

    def _begin(self, work: Callable[[], Coroutine[Any, Any, Any]], call: Call) -> None:
        task = self._loop.create_task(_work(work, call))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _serve(self) -> None:
        self._loop.run_forever()
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()


async def _work(work: Callable[[], Coroutine[Any, Any, Any]], call: Call) -> None:
    try:
        call.answer = await work()
    except Exception as error:  # noqa: BLE001  it is the caller's
        call.error = error
    deliver([call])
