"""What the behaviour tests share: cells as text, runs that have begun, and the end of processes."""

from __future__ import annotations

import asyncio
import os
import select
import textwrap
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from capsule.events import Event, Output

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from capsule import AsyncSession, Result

HANG = 60.0
"""Seconds after which something hangs. Never a measure: a busy machine takes its time."""


def cell(source: str) -> str:
    """The text of a cell, written indented in a test."""
    return textwrap.dedent(source).strip("\n")


def in_c_until(path: Path) -> str:
    """Code that tells that it runs, and in which Python has no say before this file is there; then it notes its end."""
    return f"""
import collections, functools, os
print("running", flush=True)
collections.deque(iter(functools.partial(os.access, {str(path)!r}, os.F_OK), True), 0)
ended = True
"""


@dataclass
class Running:
    """An execution that a test has begun and has seen to run."""

    task: asyncio.Task[Result]
    events: list[Event] = field(default_factory=list)
    seen_at: float = 0.0

    @property
    def text(self) -> str:
        """Everything printed so far, both streams in order."""
        return "".join(event.text for event in self.events if isinstance(event, Output))

    async def result(self) -> Result:
        """The result, or a failure if there is none."""
        async with asyncio.timeout(HANG):
            return await self.task


async def begin(session: AsyncSession, code: str, until: str | None = "go\n", **options: Any) -> Running:
    """Submit `code` and come back when it has printed `until` (or has ended); with None, at once."""
    seen = asyncio.Event()
    events: list[Event] = []

    def watch(event: Event) -> None:
        events.append(event)
        if until is not None and not seen.is_set() and until in running.text:
            running.seen_at = time.monotonic()
            seen.set()

    running = Running(asyncio.ensure_future(session.run(cell(code), on_event=watch, **options)), events)
    if until is None:
        await asyncio.sleep(0)
        return running
    waiter = asyncio.ensure_future(seen.wait())
    await asyncio.wait({running.task, waiter}, timeout=HANG, return_when=asyncio.FIRST_COMPLETED)
    waiter.cancel()
    assert seen.is_set() or running.task.done(), f"neither {until!r} nor an end: {running.text!r}"
    return running


async def run(session: AsyncSession, code: str, **options: Any) -> Result:
    """Run a cell that is written indented, and fail where it hangs."""
    async with asyncio.timeout(HANG):
        return await session.run(cell(code), **options)


async def ok(session: AsyncSession, code: str, **options: Any) -> Result:
    """Run a cell that must end well."""
    result = await run(session, code, **options)
    assert result.verdict == "ok", (result.verdict, result.error)
    return result


async def still_well(session: AsyncSession) -> None:
    """The session takes code and answers."""
    result = await ok(session, "print('well')\n6 * 7")
    assert (result.stdout, result.text) == ("well\n", "42")


async def gone(*pids: int) -> None:
    """Come back when none of the processes lives."""
    await asyncio.to_thread(wait_gone, pids)


def descendants() -> set[psutil.Process]:
    """All processes below this one."""
    return set(psutil.Process().children(recursive=True))


async def gone_since(before: set[psutil.Process]) -> None:
    """Come back when none of those lives that have come since; but for the box that a zygote keeps ahead."""
    news = descendants() - before
    async with asyncio.timeout(HANG):
        while any(map(_lives, news)):
            await asyncio.sleep(0.01)


def _lives(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.name() != "capsule-spare"
    return False


def wait_gone(pids: Iterable[int], within: float = HANG) -> None:
    """Wait, by their pidfds, until none of the processes lives (a zombie does not)."""
    deadline = time.monotonic() + within
    for pid in pids:
        try:
            fd = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            ready, _, _ = select.select([fd], [], [], max(0.0, deadline - time.monotonic()))
        finally:
            os.close(fd)
        assert ready, f"process {pid} still runs: {_command(pid)}"


def _command(pid: int) -> str:
    path = Path(f"/proc/{pid}/cmdline")
    return path.read_bytes().replace(b"\0", b" ").decode() if path.exists() else "gone"
