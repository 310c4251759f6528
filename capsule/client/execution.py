"""One submitted piece of code, seen by an asynchronous caller: its events and its result."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Self

from capsule.client.arguments import check_timeout
from capsule.client.inputs import Answers, OnInput, reply
from capsule.client.patience import at_most
from capsule.client.remote.execution import RemoteExecution
from capsule.client.results import Collector, Result
from capsule.events import Event, Finished, InputRequest
from capsule.node.requests import conflict
from capsule_protocol.errors import CapsuleError, SessionError

if TYPE_CHECKING:
    from types import TracebackType

    from capsule.client.inner import AnyExecution
    from capsule.client.session import AsyncSession

OnEvent = Callable[[Event], Awaitable[None] | None]
"""Gets each event, in order; what it raises interrupts the execution and reaches the caller."""

BATCH = 64
"""Events (of at most 64 KiB of text each) that go to another thread at once."""


class AsyncExecution:
    """A handle of submitted code.

    Its output is read when somebody asks for `result()` or `events()`; until then the node keeps it, up to the
    session's `buffer_bytes`. Waiting for another execution of the session collects the output of those before it.
    """

    __slots__ = ("__weakref__", "_answers", "_collecting", "_collector", "_inner", "_key", "_lock", "_session")

    def __init__(
        self, session: AsyncSession, inner: AnyExecution, on_input: OnInput | None = None, key: str | None = None
    ) -> None:
        self._session = session
        self._inner = inner
        self._key = key
        self._answers = None if on_input is None else Answers(inner, on_input)
        self._collector = Collector()
        self._collecting = False
        self._lock = asyncio.Lock()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.execution_id} {self.state}>"

    @property
    def execution_id(self) -> str:
        """The id that all events of this execution carry."""
        return self._inner.id

    @property
    def state(self) -> str:
        """`queued`, `running` or `done`."""
        return self._inner.state

    @property
    def done(self) -> bool:
        """Whether the verdict has been read, so that `result()` answers at once."""
        return self._collector.result is not None

    @property
    def over(self) -> bool:
        """Whether the code has ended at the node, read or not."""
        return self._inner.state == "done"

    async def accepted(self, timeout: float | None = None) -> None:
        """Wait until the node has the code, at most so many seconds: then TimeoutError, and the code goes on.

        A node that writes things down has done so then: whatever happens to this program, the execution's id finds it.
        Raises what the node has against it.
        """
        limit = check_timeout(timeout)
        if isinstance(self._inner, RemoteExecution):  # a node in this process has it already
            async with at_most(limit, self.execution_id, "is not accepted"):
                try:
                    await self._inner.until_accepted()
                except SessionError as error:
                    raise self._explained(error) from error

    async def result(self, timeout: float | None = None, *, on_event: OnEvent | None = None) -> Result:
        """Wait for the verdict, at most so many seconds: then TimeoutError, and the code goes on.

        May be called several times; a caller that is cancelled leaves the code running. What `events()` gave before is
        not kept, so it is not in the result. Raises what `on_input` raised.
        """
        limit = check_timeout(timeout)
        self._collecting = True
        self._session.collect_before(self)
        async with at_most(limit, self.execution_id, "has no verdict"):
            await self.drain(on_event)
        self._raise_failure()
        assert self._collector.result is not None
        return self._collector.result

    def events(self) -> AsyncEvents:
        """The events from here on, ending in `Finished`; leaving the iterator early cancels the execution.

        Raises SessionError if the events are being collected for a result already.
        """
        self.claim()
        return AsyncEvents(self)

    async def cancel(self) -> bool:
        """Interrupt the code, or take it out of the queue; False if it had ended."""
        return await self._session.cancel(self.execution_id)

    # For this package

    def claim(self) -> None:
        """Somebody is going to read the events one by one."""
        if self._collecting and not self.done:
            message = f"the events of {self.execution_id} are being collected for its result already"
            raise SessionError("unsupported", message)
        self._session.collect_before(self)
        self._session.forget(self)

    def abandon(self) -> None:
        """End the code and throw away what it still says; returns at once."""
        if not self.done:
            if self._answers is not None:
                self._answers.cancel()
                self._answers = None
            self._session.own(self._end())

    async def drain(self, on_event: OnEvent | None = None) -> None:
        """Read to the verdict, for the result."""
        self._collecting = True
        async with self._lock:  # several may wait for the same result
            while not self.done:
                event = self._take(await self._next())
                if not isinstance(event, Finished):
                    self._collector.feed(event)
                if on_event is not None:
                    waiting = on_event(event)
                    if inspect.isawaitable(waiting):
                        await waiting

    async def next_event(self) -> Event | None:
        """The next event, or None after `Finished`, where what `on_input` raised is raised."""
        async with self._lock:
            if not self.done:
                return self._take(await self._next())
        self._raise_failure()
        return None

    async def next_events(self, limit: int = BATCH) -> list[Event]:
        """The next event and what is there behind it; an empty list after `Finished`."""
        events: list[Event] = []
        async with self._lock:
            if not self.done:
                events.append(self._take(await self._next()))
            while not self.done and len(events) < limit and (event := self._inner.take()) is not None:
                events.append(self._take(event))
        return events

    def reply(self, request: InputRequest, answer: str | None) -> None:
        """Answer a request that was read as an event; None: EOFError."""
        reply(self._inner, request, answer)

    async def _next(self) -> Event:
        try:
            return await self._inner.next_event()
        except SessionError as error:
            raise self._explained(error) from error

    def _explained(self, error: SessionError) -> SessionError:
        if self._key is None or error.code != "idempotency_conflict":
            return error
        # The node has not seen the key, but the id that was made of it.
        return conflict(f"the idempotency key {self._key!r:.80}", error.details)

    def _take(self, event: Event) -> Event:
        # Nothing here awaits: a verdict that was taken from the node must not get lost.
        if isinstance(event, Finished):
            self._collector.feed(event)
            self._session.forget(self)
            if self._answers is not None:
                self._answers.cancel()
        elif isinstance(event, InputRequest) and self._answers is not None:
            self._answers.ask(event)
        return event

    async def _end(self) -> None:
        # What was refused must not be cancelled: whoever asks again with the same key has the same id.
        if not self.over:
            with contextlib.suppress(CapsuleError):  # a session that was closed meanwhile ends it by itself
                await self._session.cancel(self.execution_id)
        with contextlib.suppress(CapsuleError):  # the node refused it, or is gone: nobody waits for it
            async with self._lock:
                while not self.done:
                    self._take(await self._next())

    def _raise_failure(self) -> None:
        if self._answers is not None and self._answers.failure is not None:
            raise self._answers.failure


class AsyncEvents:
    """The events of one execution: an asynchronous iterator, and a context manager.

    Leaving it before `Finished` (its `async with`, `aclose()`, or dropping it) cancels the execution.
    """

    __slots__ = ("_execution", "_loop")

    def __init__(self, execution: AsyncExecution) -> None:
        self._execution = execution
        self._loop = asyncio.get_running_loop()

    @property
    def execution_id(self) -> str:
        """The id that all events of this execution carry."""
        return self._execution.execution_id

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        event = await self._execution.next_event()
        if event is None:
            raise StopAsyncIteration
        return event

    async def result(self, timeout: float | None = None) -> Result:
        """What is left, as a result: what was iterated over is not kept. Waits as `AsyncExecution.result` does."""
        return await self._execution.result(timeout)

    async def aclose(self) -> None:
        """Cancel the execution unless it has ended."""
        self._execution.abandon()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._execution.abandon()

    def __del__(self) -> None:
        # A loop that was left by `break`: without this the code would wait for a reader that never comes.
        try:
            execution, loop = self._execution, self._loop
        except AttributeError:  # it was never made whole
            return
        if not execution.done and not loop.is_closed():
            loop.call_soon_threadsafe(execution.abandon)
