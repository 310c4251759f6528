"""One submitted piece of code, seen by a synchronous caller: its events and its result."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Self

from capsule.client.inputs import TRIES, Json, text_of
from capsule.events import Event, InputRequest
from capsule_protocol.errors import SessionError

if TYPE_CHECKING:
    from types import TracebackType

    from capsule.client.execution import AsyncExecution
    from capsule.client.portal import Call, Portal
    from capsule.client.results import Result
    from capsule.client.sync_session import Session

OnEvent = Callable[[Event], None]
"""Gets each event, in order; what it raises interrupts the execution and reaches the caller."""

OnInput = Callable[[InputRequest], Json]
"""Answers a question of the code: with a line of text, or with a value that its `choices` or `schema` allow.

For another value it is called again with the reason in `request.refused`, `TRIES` times in all; then that is raised.
What it raises is EOFError to the code, and reaches the caller.
"""


class Execution:
    """A handle of submitted code, as AsyncExecution; any thread may use it."""

    __slots__ = ("__weakref__", "_inner", "_portal", "_session")

    def __init__(self, session: Session, portal: Portal, inner: AsyncExecution) -> None:
        self._session = session  # a session that is dropped is closed with its client
        self._portal = portal
        self._inner = inner

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.execution_id} {self.state}>"

    @property
    def execution_id(self) -> str:
        """The id that all events of this execution carry."""
        return self._inner.execution_id

    @property
    def state(self) -> str:
        """`queued`, `running` or `done`."""
        return self._inner.state

    @property
    def done(self) -> bool:
        """Whether the verdict has been read, so that `result()` answers at once."""
        return self._inner.done

    def accepted(self, timeout: float | None = None) -> None:
        """Wait until the node has the code, and has written it down, as `AsyncExecution.accepted` does."""
        self._portal.call(self._inner.accepted, timeout)

    def result(self, timeout: float | None = None) -> Result:
        """Wait for the verdict, at most so many seconds: then TimeoutError, and the code goes on.

        May be called several times; Ctrl-C while it waits leaves the code running. What `events()` gave before is not
        kept, so it is not in the result.
        """
        return self._portal.call(self._inner.result, timeout)

    def events(self) -> Events:
        """The events from here on, ending in `Finished`; leaving the iterator early cancels the execution.

        Raises SessionError if the events are being collected for a result already.
        """

        async def claim() -> None:
            self._inner.claim()

        self._portal.call(claim)
        return Events(self._session, self._portal, self._inner)

    def cancel(self) -> bool:
        """Interrupt the code, or take it out of the queue; False if it had ended."""
        return self._portal.call(self._inner.cancel)


class Events:
    """The events of one execution: an iterator, for one thread at a time, and a context manager.

    Leaving it before `Finished` (its `with`, `close()`, or dropping it) cancels the execution. Ctrl-C while it waits
    loses no event: iteration may go on.
    """

    __slots__ = ("_buffer", "_call", "_execution", "_failure", "_on_input", "_portal", "_session")

    def __init__(
        self, session: Session, portal: Portal, execution: AsyncExecution, on_input: OnInput | None = None
    ) -> None:
        self._session = session
        self._portal = portal
        self._execution = execution
        self._on_input = on_input
        self._failure: Exception | None = None
        self._buffer: deque[Event] = deque()
        self._call: Call[list[Event]] | None = None

    @property
    def execution_id(self) -> str:
        """The id that all events of this execution carry."""
        return self._execution.execution_id

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event:
        if not self._buffer:
            self._fetch()
        if not self._buffer:
            if self._failure is not None:
                raise self._failure
            raise StopIteration
        event = self._buffer.popleft()
        if isinstance(event, InputRequest) and self._on_input is not None:
            self._answer(event, self._on_input)
        return event

    def close(self) -> None:
        """Cancel the execution unless it has ended; returns at once."""
        if not self._execution.done:
            self._portal.soon(self._execution.abandon)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        # A loop that was left by `break`: without this the code would wait for a reader that never comes.
        try:
            self.close()
        except AttributeError:  # it was never made whole, or the interpreter ends and has taken our modules apart
            return

    def _fetch(self) -> None:
        # A call whose wait was interrupted still brings its events: it is waited for again.
        self._call = self._call or self._portal.prepare(self._execution.next_events)
        self._portal.start(self._call)
        events = self._call.wait()
        self._call = None
        self._buffer.extend(events)

    def _answer(self, request: InputRequest, on_input: OnInput) -> None:
        text = None
        try:
            text = _asked(request, on_input)
        except Exception as error:  # noqa: BLE001 - kept, and raised to the caller after the verdict
            self._failure = self._failure or error
        self._portal.soon(self._execution.reply, request, text)


def _asked(request: InputRequest, on_input: OnInput) -> str:
    """What `on_input` answers at last."""
    for _ in range(TRIES - 1):
        answer = on_input(request)
        try:
            return text_of(request, answer)
        except SessionError as error:
            request = replace(request, refused=error.message)
    return text_of(request, on_input(request))
