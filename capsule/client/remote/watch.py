"""A session at a node elsewhere that this client only looks on at."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING, Any, NoReturn

from capsule.client.remote.execution import ACK_BYTES
from capsule.client.remote.session import REQUEST_TIMEOUT, Line, RemoteSession
from capsule.events import Event, Finished, Gap
from capsule.wire import size_of
from capsule_protocol.errors import CapsuleError, SessionError

if TYPE_CHECKING:
    from capsule.client.remote.execution import RemoteExecution
    from capsule.node.execution import ExecuteRequest

logger = logging.getLogger("capsule.client")

ALLOWED = frozenset({"info", "detach"})
"""What may be asked of a session that is watched."""
BATCH = 256
"""Events that are handed over at once."""
UNKNOWN = Gap("", 0, 0)
"""The connection was lost meanwhile: nobody counts what this client was not told."""
_OVER = frozenset({"session_closed", "session_killed"})


class RemoteWatch(RemoteSession):
    """Its events come through `next_events`; whatever would change the session is refused."""

    def __init__(self, line: Line, session_id: str, name: str, epoch: int) -> None:
        super().__init__(line, session_id, name, epoch, REQUEST_TIMEOUT)
        self._loop = asyncio.get_running_loop()
        self._events: deque[tuple[Event, int]] = deque()  # with the numbers under which they are acknowledged
        self._seen: dict[str, int] = {}  # the number of the last event, of each execution that runs
        self._asides = 0  # events of no execution's stream that came
        self._asides_before = 0  # those of them that came on an earlier connection
        self._dealt = 0
        self._waiter: asyncio.Future[None] | None = None

    async def next_events(self) -> list[Event]:
        """The next events, at least one; none when the session is over. Raises what ended the connection otherwise."""
        while not self._events:
            if self._refusal is not None:
                if self._refusal.code in _OVER:
                    return []
                raise self._refusal
            self._waiter = self._loop.create_future()
            await self._waiter
        return [self._take() for _ in range(min(BATCH, len(self._events)))]

    def submit(self, request: ExecuteRequest, execution_id: str = "") -> RemoteExecution:  # noqa: ARG002 - refused
        """Raises SessionError `session_watched`."""
        self._refuse()

    async def close(self) -> None:
        """Look on no more; the session goes on. Idempotent."""
        await self.leave("watches")

    # --- for the link ---

    def attaching(self) -> dict[str, Any]:
        """What to say on a new connection."""
        self._asides_before = self._asides
        if not self._events or self._events[-1][0] is not UNKNOWN:
            self._add(UNKNOWN, 0)
        return {"name": self.id, "watch": True}

    def add(self, event: Event) -> None:
        """An event of an execution; on a new connection some come again."""
        seen = self._seen.get(event.execution_id, 0)
        if event.sequence <= seen:
            return
        if isinstance(event, Gap):
            event = Gap(event.execution_id, event.sequence, min(event.missing, event.sequence - seen))
        self._seen[event.execution_id] = event.sequence
        if isinstance(event, Finished):
            del self._seen[event.execution_id]
        self._add(event, event.sequence)

    def background(self, event: Event) -> None:
        """Output that came after its verdict, or how much of anything was left out."""
        self._asides += 1
        self._add(event, self._asides)

    def resume(self) -> None:
        """The link is there again; the node tells by itself what runs."""

    def end(self, error: CapsuleError) -> None:
        """Nothing comes any more."""
        super().end(error)
        self._wake()

    # --- inside ---

    def _take(self) -> Event:
        event, number = self._events.popleft()
        self._dealt += size_of(event)
        ended = isinstance(event, Finished)
        if not event.sequence:
            number -= self._asides_before
        if number > 0 and (ended or self._dealt >= ACK_BYTES):
            self._dealt = 0
            self.acknowledge(event.execution_id if event.sequence else "", number, soon=not ended)
        return event

    def _add(self, event: Event, number: int) -> None:
        self._events.append((event, number))
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _ask(
        self, kind: str, body: dict[str, Any], timeout: float = REQUEST_TIMEOUT, *, again: bool = True
    ) -> dict[str, Any]:
        if kind not in ALLOWED:
            self._refuse()
        return await super()._ask(kind, body, timeout, again=again)

    def _refuse(self) -> NoReturn:
        self.check_open()
        raise SessionError("session_watched", f"this client only watches the session {self.name!r}")
