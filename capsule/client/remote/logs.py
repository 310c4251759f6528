"""The logs of executions at a node elsewhere, for any number of callers at once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple

from capsule.client.remote.session import REQUEST_TIMEOUT
from capsule.events import Event, Gap
from capsule.wire import unpack_events

if TYPE_CHECKING:
    from capsule.client.remote.link import Link

MAX_WAITING = 128
"""Requests under way at once that the node keeps back until there is something to tell: it bounds all of a client's."""
MAX_ASKING = 64
"""Requests under way at once that are answered as soon as the node has looked."""


class LogPart(NamedTuple):
    """Events of an execution, and whether they go to its verdict."""

    events: list[Event]
    ended: bool


class Logs:
    """Those that one client reads. Who comes when many wait has his turn; what is there already waits for nobody."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._waiting = asyncio.Semaphore(MAX_WAITING)
        self._asking = asyncio.Semaphore(MAX_ASKING)

    async def part(self, execution: str, after: int) -> LogPart:
        """What an execution told behind an event, once there is something. Raises SessionError `execution_unknown`."""
        while True:
            part = None
            if self._waiting.locked():
                async with self._asking:
                    part = await self._read(execution, after, wait=False)
            if part is None:
                async with self._waiting:
                    part = await self._read(execution, after, wait=True)
            if part is not None:
                return part

    async def _read(self, execution: str, after: int, *, wait: bool) -> LogPart | None:
        await self._link.connect()
        body = {"execution": execution, "after": after, "wait": wait}
        reply = await self._link.request("read_log", body, timeout=REQUEST_TIMEOUT, again=True)
        if not (reply["count"] or reply["ended"]):
            return None
        first = max(after + 1, reply["first"])
        events = unpack_events(reply["buffers"][0], execution, first)
        gap = [Gap(execution, first - 1, first - 1 - after)] if first > after + 1 else []
        return LogPart([*gap, *events], reply["ended"])
