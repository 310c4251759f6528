"""Work that waits for a disk, on threads of the provider's own, so that the node's loop never waits."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

import anyio

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

T = TypeVar("T")

MOST: Final = 8
"""Threads. What all sessions ask for shares them."""
SLICE: Final = 0.02
"""Seconds that a long work may have a thread before others have their turn, and a cancellation is looked at."""


class Threads:
    """A few threads. Nothing that runs on them is ever left alone: it uses descriptors that its owner will close."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(MOST, thread_name_prefix="capsule-files")

    async def run(self, work: Callable[[], T], *, always: bool = False) -> T:
        """Do it and wait, to its end: who is cancelled meanwhile is so afterwards, or at once if it has not begun.

        `always`: then it is done nevertheless, since it cleans up.
        """
        job = self._executor.submit(work)
        done = asyncio.wrap_future(job)
        cancelled: asyncio.CancelledError | None = None
        with anyio.CancelScope(shield=True):
            while not done.done():
                try:
                    await asyncio.wait([done])
                except asyncio.CancelledError as error:
                    cancelled = error
                    if not always and job.cancel():
                        raise
        if cancelled is not None:
            if not done.cancelled():
                done.exception()  # it has been looked at
            raise cancelled
        return done.result()

    async def drive(self, steps: Generator[None, None, T]) -> T:
        """Run a generator to its end, a slice at a time; it is closed if the caller is cancelled, on a thread too."""
        try:
            while (over := await self.run(partial(_slice, steps))) is None:
                pass
        except BaseException:
            await self.run(steps.close, always=True)
            raise
        return over[0]

    def close(self) -> None:
        """Let the threads go. Idempotent."""
        self._executor.shutdown()


def _slice(steps: Generator[None, None, T]) -> tuple[T] | None:
    until = time.monotonic() + SLICE
    try:
        while True:
            next(steps)
            if time.monotonic() >= until:
                return None
    except StopIteration as stop:
        return (stop.value,)
