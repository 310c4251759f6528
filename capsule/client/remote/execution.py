"""One execution at a node elsewhere: the events that have arrived, and what the client has dealt with."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

from capsule.events import Event, Finished, Started
from capsule.wire import size_of

if TYPE_CHECKING:
    from capsule.node.asking import InputError
    from capsule.node.execution import ExecuteRequest, ExecutionState
    from capsule_protocol.errors import CapsuleError

ACK_BYTES = 2**18
"""Bytes of events after which they are acknowledged, so that the node sends more."""


MAX_ANSWERS = 64
"""Answers to `input()` that are said again on a new connection: more threads will not ask at once."""


class Host(Protocol):
    """What an execution asks of its session."""

    def acknowledge(self, execution: str, number: int, *, soon: bool) -> None:
        """The events up to this one are dealt with."""

    def send_input(self, execution: str, request: str, value: str | None, error: InputError | None) -> None:
        """Answer a request for input."""


class RemoteExecution:
    """What `capsule.node.execution.Execution` is to its consumer; the rest belongs to the session."""

    __slots__ = (
        "_asking",
        "_dealt",
        "_error",
        "_events",
        "_host",
        "_loop",
        "_waiter",
        "accepted",
        "answers",
        "id",
        "keyed",
        "received",
        "request",
        "state",
        "verdict",
    )

    def __init__(self, execution_id: str, host: Host, request: ExecuteRequest, *, keyed: bool) -> None:
        self.id = execution_id
        self.request = request
        self.keyed = keyed
        self.state: ExecutionState = "queued"
        self.verdict: Finished | None = None
        self.accepted = False
        self.answers: deque[dict[str, Any]] = deque(maxlen=MAX_ANSWERS)
        self.received = 0
        self._host = host
        self._loop = asyncio.get_running_loop()
        self._events: deque[Event] = deque()
        self._error: CapsuleError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._asking: list[asyncio.Future[None]] = []
        self._dealt = 0

    # --- the consumer's side ---

    async def next_event(self) -> Event:
        """The next event; after `Finished`, `Finished` again. Raises what the node said instead of a verdict."""
        while (event := self.take()) is None:
            if self.verdict is not None:
                return self.verdict
            if self._error is not None:
                raise self._error
            self._waiter = self._loop.create_future()
            await self._waiter
        return event

    async def until_accepted(self) -> None:
        """Wait until the node has said that it has it. Raises what the node said instead."""
        while not self.accepted:
            if self._error is not None:
                raise self._error
            self._asking.append(self._loop.create_future())
            await self._asking[-1]

    def take(self) -> Event | None:
        """The next event if there is one now."""
        if not self._events:
            return None
        event = self._events.popleft()
        self._dealt += size_of(event)
        ended = isinstance(event, Finished)
        if ended or self._dealt >= ACK_BYTES:
            self._dealt = 0
            self._host.acknowledge(self.id, event.sequence, soon=not ended)
        return event

    def reply_input(self, request_id: str, value: str | None, error: InputError | None = None) -> None:
        """Answer an `InputRequest`, with text or with why there is none."""
        self._host.send_input(self.id, request_id, value, error)

    # --- the session's side ---

    def add(self, event: Event) -> None:
        """An event has arrived."""
        self.received = event.sequence
        if isinstance(event, Finished):
            self.verdict = event
            self.state = "done"
        elif isinstance(event, Started):
            self.state = "running"
        self._events.append(event)
        self._wake()

    def accept(self) -> None:
        """The node has it."""
        self.accepted = True
        self._tell_asking()

    def fail(self, error: CapsuleError) -> None:
        """There will be no verdict."""
        if self.verdict is None and self._error is None:
            self._error = error
            self.state = "done"
            self._wake()
            self._tell_asking()

    def _tell_asking(self) -> None:
        for asking in self._asking:
            if not asking.done():
                asking.set_result(None)
        self._asking.clear()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
