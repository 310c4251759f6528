"""Waiting for what other processes do to files, by the system's word and not by looking again and again; and which of
this one's children are there.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

import psutil
from asyncinotify import Inotify, Mask

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

T = TypeVar("T")
PATIENCE = 60.0


async def found(folder: Path, look: Callable[[], Awaitable[T]]) -> T:
    """What `look` finds that is not nothing, tried whenever a file in the folder changes."""
    async with asyncio.timeout(PATIENCE):
        with Inotify() as inotify:
            inotify.add_watch(folder, Mask.CREATE | Mask.MODIFY | Mask.MOVED_TO)
            while not (seen := await look()):
                with suppress(TimeoutError):  # a change may be told just before it counts
                    await asyncio.wait_for(inotify.get(), 1.0)
            return seen


async def written(path: Path, text: str) -> None:
    """Wait until this is in a file, whose directory is there."""

    async def look() -> bool:
        return path.exists() and text in path.read_text(encoding="utf-8")

    await found(path.parent, look)


def children_with(argument: str) -> list[int]:
    """The children of this process that were started with it."""
    pids = []
    for child in psutil.Process().children():
        with suppress(psutil.Error):  # it is just being buried
            if argument in child.cmdline():
                pids.append(child.pid)
    return pids
