"""Work that waits for a disk, on threads."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
P = ParamSpec("P")


async def on_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call it on one of the event loop's threads, whose number is bounded, and wait.

    Always to its end, also when the caller is cancelled: it uses descriptors, which nobody may close meanwhile.
    """
    return await made_on_thread(partial(function, *args, **kwargs), _nothing)


async def made_on_thread(make: Callable[[], T], undo: Callable[[T], object]) -> T:
    """The same for what has to be undone if the caller is cancelled, and nobody gets it."""
    work = asyncio.get_running_loop().run_in_executor(None, make)
    cancelled: asyncio.CancelledError | None = None
    while not work.done():
        try:
            await asyncio.wait([work])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        if not work.cancelled() and work.exception() is None:
            undo(work.result())
        raise cancelled
    return work.result()


def _nothing(_result: object) -> None:
    """There is nothing to undo."""
