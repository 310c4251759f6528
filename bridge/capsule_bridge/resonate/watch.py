"""Noticing verdicts that others gave, for whoever waits for them.

By looking from time to time: Resonate calls whoever registers for it, but once only, and behind a call that is lost
there is nothing. So a look is needed anyway, and alone it is enough.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from capsule_protocol.errors import SessionError, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from capsule_bridge.records import Promise
    from capsule_bridge.resonate.judge import Judge
    from capsule_bridge.resonate.mirror import Mirror

POLL_SECONDS = 1.0
"""Between two looks."""


class Watch:
    """Who waits for what. It owns a task for each who does."""

    def __init__(self, judge: Judge, mirror: Mirror) -> None:
        self._judge = judge
        self._mirror = mirror
        self._tasks: set[asyncio.Task[None]] = set()

    def subscribe(
        self, heard: Callable[[Collection[str]], None], waiting: Callable[[], Collection[str]]
    ) -> Callable[[], None]:
        """As `ResonateStore.subscribe`."""
        self._judge.listeners.append(heard)
        task = asyncio.ensure_future(self._look(waiting))
        self._tasks.add(task)

        def ended(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            self._judge.listeners.remove(heard)

        task.add_done_callback(ended)

        def end() -> None:
            task.cancel()

        return end

    async def stop(self) -> None:
        """End all of it."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _look(self, waiting: Callable[[], Collection[str]]) -> None:
        while True:
            await asyncio.sleep(POLL_SECONDS)
            with suppress(StoreError):  # the server is away: whoever asks is told so, and the next look is soon
                await self._ask(waiting())

    async def _ask(self, ids: Collection[str]) -> None:
        """Look at these and at what waits below them: the judge tells of what it finds."""
        known = [promise for id_ in ids if (promise := await self._find(id_)) is not None]
        below = await self._mirror.family([promise.id for promise in known])
        outcomes = await asyncio.gather(*map(self._judge.hear, [*known, *below]), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome

    async def _find(self, id_: str) -> Promise | None:
        with suppress(SessionError):  # it has been forgotten, or is none of this store's
            return await self._mirror.look(id_)
        return None
