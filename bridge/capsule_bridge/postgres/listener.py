"""The connection that hears what was settled or logged, by this node and by others, and tells who waits for it.

A notification comes after its commit, for as long as the connection lives. So what can get lost is what came while
there was none: after each connecting, subscribers look at all that they wait for. From time to time what they wait for
is looked at, too, which also tells whether the connection is alive.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from capsule_bridge.postgres.connect import FAILURES, let_go
from capsule_bridge.postgres.schema import queries
from capsule_protocol.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from asyncpg import Connection, Record

    from capsule_bridge.postgres.connect import Database

SCAN_SECONDS = 5.0
"""How often what is waited for is looked at, though nobody told of it."""
RETRY_SECONDS = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""How long to wait before connecting again: after a loss, after the first failure, the second …; then the last."""


@dataclass(slots=True, eq=False)
class Subscription:
    """Somebody who waits, in a loop of his own."""

    heard: Callable[[Collection[str]], None]
    waiting: Callable[[], Collection[str]]
    loop: asyncio.AbstractEventLoop

    def tell(self, ids: Collection[str]) -> None:
        """These have changed."""
        self._call(self.heard, ids)

    def look_again(self) -> None:
        """Any may have changed."""
        self._call(lambda: self.heard(self.waiting()))

    async def asked(self) -> Collection[str]:
        """What is waited for; nothing if its loop does not answer in time."""
        ours = asyncio.get_running_loop()
        answer: asyncio.Future[Collection[str]] = ours.create_future()

        def reply(found: Collection[str]) -> None:
            if not answer.done():
                answer.set_result(found)

        def ask() -> None:
            ours.call_soon_threadsafe(reply, tuple(self.waiting()))

        self._call(ask)
        try:
            return await asyncio.wait_for(answer, SCAN_SECONDS)
        except TimeoutError:
            return ()

    def _call(self, function: Callable[..., object], *arguments: object) -> None:
        with suppress(RuntimeError):  # the loop has been closed: nobody waits any more
            self.loop.call_soon_threadsafe(function, *arguments)


class Listener:
    """Subscriptions, and from the first one on a connection. `ours`: which process is our own writer's."""

    def __init__(self, database: Database, ours: Callable[[], int | None]) -> None:
        self._database = database
        self._ours = ours
        self._subscriptions: dict[Subscription, None] = {}
        self._task: asyncio.Task[None] | None = None
        self._failures = 0

    def add(self, subscription: Subscription) -> None:
        """Tell this one too."""
        self._subscriptions[subscription] = None
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._serve())
        else:
            subscription.look_again()

    def remove(self, subscription: Subscription) -> None:
        """Tell it no more."""
        self._subscriptions.pop(subscription, None)

    def tell(self, ids: Collection[str]) -> None:
        """What our own writer has committed needs not go through the database to be heard here."""
        for each in self._subscriptions:
            each.tell(ids)

    async def stop(self) -> None:
        """Hear no more."""
        self._subscriptions.clear()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _serve(self) -> None:
        while True:
            try:
                connection = await self._database.connect()
                try:
                    await self._listen(connection)
                finally:
                    await let_go(connection)
            except (StoreError, *FAILURES):
                self._failures += 1
            await asyncio.sleep(RETRY_SECONDS[min(self._failures, len(RETRY_SECONDS) - 1)])

    async def _listen(self, connection: Connection[Record]) -> None:
        """Until the connection is lost. Raises what it was lost by, if that is known."""
        lost = asyncio.Event()
        connection.add_termination_listener(lambda _: lost.set())
        await connection.add_listener(self._database.channel, self._hear)
        self._failures = 0
        self._look_again()
        while not lost.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(lost.wait(), SCAN_SECONDS)
                return
            await self._scan(connection)

    async def _scan(self, connection: Connection[Record]) -> None:
        for each in tuple(self._subscriptions):
            ids = list(await each.asked())
            settled = [id_ for (id_,) in await connection.fetch(queries()["settled_among"], ids)]
            if settled:
                each.tell(settled)

    def _hear(self, _connection: object, process: int, _channel: str, payload: Any) -> None:
        if process == self._ours():
            return
        ids = json.loads(payload)
        if ids:
            self.tell(ids)
        else:  # one of them was too long to be told
            self._look_again()

    def _look_again(self) -> None:
        for each in self._subscriptions:
            each.look_again()
