"""Writing to a descriptor from an event loop: never blocks it, buffers nothing, adds nothing."""

from __future__ import annotations

import asyncio
import os
import select

PIECE = 4096
"""A pipe that polls as writable takes this much (PIPE_BUF) without blocking."""


class Sink:
    """One of our standard streams. A slow reader slows the writer, and Ctrl-C still works meanwhile."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.terminal = os.isatty(descriptor)
        self.at_line_start = True
        self._lock = asyncio.Lock()  # late output is written by a task of its own
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)

    async def write(self, text: str) -> None:
        """Write all of a text as UTF-8, at once; raises `BrokenPipeError` when nobody reads any more."""
        if not text:
            return
        async with self._lock:
            self.at_line_start = text.endswith("\n")
            rest = memoryview(text.encode("utf-8", "replace"))
            while rest:
                if not self._poll.poll(0):
                    await self._writable()
                rest = rest[os.write(self.descriptor, rest[:PIECE]) :]

    async def fresh_line(self) -> None:
        """End a line that has begun."""
        if not self.at_line_start:
            await self.write("\n")

    async def _writable(self) -> None:
        # Only pipes, sockets and terminals come here; files always poll as writable, and epoll refuses them.
        loop = asyncio.get_running_loop()
        ready = loop.create_future()
        loop.add_writer(self.descriptor, _settle, ready)
        try:
            await ready
        finally:
            loop.remove_writer(self.descriptor)


def _settle(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
