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
    work = asyncio.get_running_loop().run_in_executor(None, partial(function, *args, **kwargs))
    cancelled: asyncio.CancelledError | None = None
    while not work.done():
        try:
            await asyncio.wait([work])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        if not work.cancelled():
            work.exception()  # nobody is left to be told
        raise cancelled
    return work.result()
