"""Telling code what happens in a directory, as long as it wants to know."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Final

from capsule.providers.files.places import place
from capsule.providers.files.schemas import WatchResponse
from capsule.providers.files.watched import PAUSE, Watched

if TYPE_CHECKING:
    from collections.abc import Iterable

    from capsule.broker.sdk import Call
    from capsule.providers.files.means import Means
    from capsule.providers.files.schemas import WatchRequest
    from capsule.providers.files.watched import Event

_AT_ONCE: Final = 128
"""Events in one chunk."""


async def watch(means: Means, call: Call) -> WatchResponse:
    """Send events as lines of JSON. The first is `ready`: what happens after it is told, or counted as lost."""
    request: WatchRequest = call.request
    with means.watching(), place(means.roots, call.scope, request.path) as at:
        wake = asyncio.Event()
        watched = Watched(at, call.scope, recursive=request.recursive, on_event=wake.set)
        try:
            await means.threads.drive(watched.begin())
            reading = _Reading(watched)
            try:
                await call.send(_lines([{"event": "ready"}]))
                told = await _Telling(means, call, watched, wake).run()
            finally:
                reading.close()
        finally:
            watched.close()
    return WatchResponse(events=told, lost=watched.lost)


class _Reading:
    """Has batches taken in while the loop does other things, with pauses."""

    def __init__(self, watched: Watched) -> None:
        self._watched = watched
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._resume()

    def close(self) -> None:
        self._loop.remove_reader(self._watched.descriptor)
        if self._timer is not None:
            self._timer.cancel()

    def _resume(self) -> None:
        self._loop.add_reader(self._watched.descriptor, self._read)

    def _read(self) -> None:
        self._loop.remove_reader(self._watched.descriptor)
        self._watched.read()
        self._timer = self._loop.call_later(PAUSE, self._resume)


class _Telling:
    """Sends what waits, until it has been long enough, or enough."""

    def __init__(self, means: Means, call: Call, watched: Watched, wake: asyncio.Event) -> None:
        request: WatchRequest = call.request
        self._means = means
        self._call = call
        self._watched = watched
        self._wake = wake
        self._left = request.count
        self._told = 0
        self._loop = asyncio.get_running_loop()
        self._until = None if request.seconds is None else self._loop.time() + request.seconds

    async def run(self) -> int:
        """How many events were told."""
        while self._left != 0 and (self._until is None or self._loop.time() < self._until):
            self._wake.clear()
            while self._watched.entered:
                await self._means.threads.drive(self._watched.enter(self._watched.entered.popleft()))
            events = self._watched.tell(_AT_ONCE if self._left is None else min(self._left, _AT_ONCE))
            if events:
                await self._send(events)
            elif self._watched.gone:
                await self._call.send(_lines([{"event": "gone"}]))
                break
            elif not await self._more():
                break
        return self._told

    async def _send(self, events: list[Event]) -> None:
        count = sum(event["event"] != "lost" for event in events)
        self._told += count
        if self._left is not None:
            self._left -= count
        await self._call.send(_lines(events))

    async def _more(self) -> bool:
        """Wait for something to tell; False when the time is over."""
        try:
            async with asyncio.timeout_at(self._until):
                await self._wake.wait()
        except TimeoutError:
            return False
        return True


def _lines(events: Iterable[Event]) -> bytes:
    return b"".join(json.dumps(event, ensure_ascii=False).encode() + b"\n" for event in events)
