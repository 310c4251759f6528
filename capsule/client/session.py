"""A session, seen by an asynchronous caller."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple, Self, Unpack

from capsule.client.arguments import (
    CellOptions,
    ExecuteOptions,
    check_callback,
    check_code,
    check_codes,
    check_execute,
    check_flag,
    check_key,
    check_text,
    check_timeout,
)
from capsule.client.checkpoints import AsyncCheckpoints
from capsule.client.execution import AsyncEvents, AsyncExecution, OnEvent
from capsule.client.finish import finish
from capsule.client.loops import check_loop
from capsule.client.progress import Progress
from capsule.client.remote.watch import RemoteWatch
from capsule.events import Event, InputRequest
from capsule.node.execution import ExecuteRequest
from capsule.node.session import Session
from capsule_protocol.errors import ArgumentError, SessionError
from capsule_protocol.ids import new_id

if TYPE_CHECKING:
    from types import TracebackType

    from capsule.client.inner import AnySession
    from capsule.client.inputs import Json, OnInput
    from capsule.client.results import Result
    from capsule.comms import CommRequest
    from capsule.node.info import SessionInfo

logger = logging.getLogger("capsule.client")

OnBackground = Callable[[Event], None]
"""Gets output that came after the verdict of its execution: from threads, tasks and children that went on."""


class Batch(NamedTuple):
    """What an execution belongs to, and the id of the one before it if it is to run only when that ends in `ok`."""

    name: str = ""
    follows: str = ""


NO_BATCH = Batch()


class AsyncSession(AsyncCheckpoints):
    """A worker process of one's own that keeps its state from one `run` to the next; made by `client.session()`.

    Executions run one after another, in order of submission. Every method raises SessionError when the session or its
    client is closed. Closing it ends the worker with all its processes and files.
    """

    def __init__(self, inner: AnySession, on_background: OnBackground | None = None) -> None:
        super().__init__(inner)
        self._tasks: set[asyncio.Task[None]] = set()
        self._unread: dict[str, AsyncExecution] = {}
        self._prune_at = 64
        if on_background is not None:
            inner.on_background = guarded(on_background)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} {self.name!r} {self.state}>"

    async def run(
        self,
        code: str,
        *,
        timeout: float | None = None,
        key: str | None = None,
        on_event: OnEvent | None = None,
        on_input: OnInput | None = None,
        progress: bool = False,
        **options: Unpack[ExecuteOptions],
    ) -> Result:
        """Run `code` and wait for its result, whatever the verdict.

        `timeout` in seconds, counted from the start of the code. Without `on_input`, `input()` raises EOFError. A
        caller that is cancelled interrupts its execution. With a `key`, a node elsewhere runs this code once in this
        session, however often it is asked, and gives the same events again. `progress`: output and elapsed time are
        shown, in a terminal, in a notebook, or as plain text. Raises ArgumentError for a bad argument,
        SessionError when the session cannot run code, and what the callbacks raised.
        """
        check_callback(on_event, "on_event")
        check_callback(on_input, "on_input")
        if check_flag(progress, "progress"):
            with Progress() as shown:
                on_event, on_input = watched(shown, on_event), asked(shown, on_input)
                return await self.run(code, timeout=timeout, key=key, on_event=on_event, on_input=on_input, **options)
        execution = self.start(code, options, timeout=timeout, key=key, on_input=on_input)
        try:
            return await execution.result(on_event=on_event)
        except BaseException:
            execution.abandon()
            raise

    def submit(
        self,
        code: str,
        *,
        timeout: float | None = None,
        key: str | None = None,
        on_input: OnInput | None = None,
        batch: str = "",
        **options: Unpack[ExecuteOptions],
    ) -> AsyncExecution:
        """Queue `code` and return a handle at once; executions run in the order of submission.

        `batch` names what belongs together for `stop_on_error`. Raises as `run` does.
        """
        execution = self.start(code, options, timeout=timeout, key=key, on_input=on_input, batch=Batch(batch))
        self._unread[execution.execution_id] = execution
        self._prune()
        return execution

    def stream(
        self,
        code: str,
        *,
        timeout: float | None = None,
        key: str | None = None,
        on_input: OnInput | None = None,
        **options: Unpack[ExecuteOptions],
    ) -> AsyncEvents:
        """Run `code` and iterate over its events, the last of which is `Finished`.

        Use it in `async with`: leaving it early cancels the execution. A reader that is slow slows the code down, once
        `buffer_bytes` are waiting. Raises as `run` does.
        """
        return self.start(code, options, timeout=timeout, key=key, on_input=on_input).events()

    async def run_all(
        self,
        codes: Iterable[str],
        *,
        timeout: float | None = None,
        stop_on_error: bool = True,
        **options: Unpack[CellOptions],
    ) -> list[Result]:
        """Submit all pieces of code at once and wait for their results, in order; `timeout` holds for each.

        After one that does not end in `ok` the rest is cancelled: verdict `interrupted`, code `execution_cancelled`.
        Nothing runs if one of the arguments is wrong.
        """
        checked = check_codes(codes)
        batched = ExecuteOptions(stop_on_error=stop_on_error, **options)
        name = new_id("b_")
        executions: list[AsyncExecution] = []
        try:
            for code in checked:
                follows = executions[-1].execution_id if stop_on_error and executions else ""
                executions.append(self.start(code, batched, timeout=timeout, batch=Batch(name, follows)))
            return [await execution.result() for execution in executions]
        except BaseException:
            for execution in reversed(executions):
                execution.abandon()
            raise

    async def send_comm(
        self,
        request: CommRequest,
        *,
        timeout: float | None = None,
        on_event: OnEvent | None = None,
        on_input: OnInput | None = None,
    ) -> Result:
        """Say something on a comm, and wait until the code has acted on it: an execution like any other.

        Its events and its result have what that printed, showed and said on comms. Raises as `run` does. The error of a
        comm or target that the code does not have has the code `comm_unknown`.
        """
        self.check_open()
        check_callback(on_event, "on_event")
        check_callback(on_input, "on_input")
        asked = ExecuteRequest("", check_timeout(timeout), allow_input=on_input is not None, comm=request)
        execution = AsyncExecution(self, self._inner.submit(asked), on_input)
        try:
            return await execution.result(on_event=on_event)
        except BaseException:
            execution.abandon()
            raise

    async def interrupt(self) -> bool:
        """Interrupt the running execution, or the question that is answered; False if there is neither.

        Its verdict, or the error `execution_interrupted`, comes to whoever waits for it.
        """
        self.check_open()
        return await self._inner.interrupt()

    async def cancel(self, execution_id: str) -> bool:
        """Interrupt an execution, or take it out of the queue; False if it had ended or is unknown."""
        self.check_open()
        return await self._inner.cancel(check_text(execution_id, "execution_id"))

    async def cancel_all(self) -> int:
        """Interrupt all that runs, and take out of the queue all that waits: how many that were. Idempotent."""
        self.check_open()
        return await self._inner.cancel_all()

    async def restart(self) -> None:
        """Replace the worker by a new one: all state of the code is gone, what was queued gets its verdict."""
        self.check_open()
        await self._inner.restart()

    async def info(self) -> SessionInfo:
        """State, process id, counts, memory (bytes), last heartbeat, queue, negotiated protocol.

        Also when it is closed, if the node is in this process.
        """
        return self._inner.info() if isinstance(self._inner, Session) else await self._inner.info()

    async def detach(self) -> None:
        """Leave the session to itself at a node elsewhere: `client.attach(name)` finds it again.

        Executions that run go on, and wait for nobody. Raises ArgumentError where the node is in this process.
        """
        self.check_open()
        if isinstance(self._inner, Session):
            message = "a session of a node in this process ends with it"
            raise ArgumentError("detach", message, allowed="a client with an address", code="unsupported")
        await self._inner.detach()
        self._closed = True

    async def watch(self) -> AsyncIterator[Event]:
        """All events of all executions, of a session that was attached to with `watch=True`, until the session ends.

        It begins with what runs, as far as the node keeps that. Events numbered 0 came after their verdict. Who is slow
        holds up nobody: a `Gap` says how many events were left out. Raises SessionError `unsupported` for any other
        session, and what ended the connection.
        """
        self.check_watching()
        while events := await self.next_watched():
            for event in events:
                yield event

    async def close(self) -> None:
        """End the worker, its processes and files; again: nothing. What still runs gets its verdict first."""
        check_loop(self._loop, f"the session {self.name!r}")
        self._closed = True
        await finish(self._close())

    async def __aenter__(self) -> Self:
        self.check_open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # For this package

    def start(
        self,
        code: str,
        options: ExecuteOptions,
        *,
        timeout: float | None = None,
        key: str | None = None,
        on_input: OnInput | None = None,
        allow_input: bool = False,
        batch: Batch = NO_BATCH,
    ) -> AsyncExecution:
        """Check everything, then submit. `allow_input` without `on_input`: whoever reads the events answers."""
        self.check_open()
        execution_id = check_key(key, self.id, remembered=not isinstance(self._inner, Session))
        check_callback(on_input, "on_input")
        request = ExecuteRequest(
            code=check_code(code),
            timeout=check_timeout(timeout),
            allow_input=allow_input or on_input is not None,
            batch=check_text(batch.name, "batch"),
            follows=batch.follows,
            **check_execute(options),
        )
        return AsyncExecution(self, self._inner.submit(request, execution_id), on_input, key)

    def check_watching(self) -> None:
        """Raise SessionError unless the session is watched."""
        if not isinstance(self._inner, RemoteWatch):
            raise SessionError("unsupported", f"the session {self.name!r} was not attached to with watch=True")

    async def next_watched(self) -> list[Event]:
        """Some events of a session that is watched, none at its end."""
        self.check_watching()
        assert isinstance(self._inner, RemoteWatch)
        return await self._inner.next_events()

    def collect_before(self, execution: AsyncExecution) -> None:
        """Read what was submitted before this execution and nobody reads.

        At the bound it would hold up the worker, and this execution with it.
        """
        if not self._unread:
            return
        for other in list(self._unread.values()):
            if other is execution:
                break
            self.forget(other)
            if not other.over:
                self.own(other.drain())

    def forget(self, execution: AsyncExecution) -> None:
        """Somebody reads this execution, or has read it."""
        self._unread.pop(execution.execution_id, None)

    def own(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` in the background, at most until the session is closed."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._disown)

    def _disown(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("the end of an execution of session %s failed", self.id, exc_info=error)

    def _prune(self) -> None:
        """Forget what has ended at the node: its output waits there, or nobody wants it, but it holds up nobody."""
        if len(self._unread) > self._prune_at:
            self._unread = {name: execution for name, execution in self._unread.items() if not execution.over}
            self._prune_at = max(64, 2 * len(self._unread))

    async def _close(self) -> None:
        await self._inner.close()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def watched(shown: Progress, on_event: OnEvent | None) -> OnEvent:
    """Events are shown, and then the caller's."""

    def call(event: Event) -> Awaitable[None] | None:
        shown.feed(event)
        return on_event(event) if on_event is not None else None

    return call


def asked(shown: Progress, on_input: OnInput | None) -> OnInput | None:
    """While the caller answers, nothing is shown that would get in his way."""
    if on_input is None:
        return None

    async def call(request: InputRequest) -> Json:
        with shown.asking():
            answer = on_input(request)
            return await answer if inspect.isawaitable(answer) else answer

    return call


def guarded(on_background: OnBackground) -> OnBackground:
    """The callback, called where nobody could catch what it raises: that is logged."""

    def call(event: Event) -> None:
        try:
            on_background(event)
        except Exception:
            logger.exception("on_background raised")

    return call
