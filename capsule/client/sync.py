"""The synchronous client: a thin shell around the asynchronous one, which lives on a thread with an event loop."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Self, Unpack

from capsule.client.aio import AsyncClient
from capsule.client.approvals import Approvals
from capsule.client.arguments import CellOptions, ExecuteOptions, check_callback, check_codes, check_execute, check_flag
from capsule.client.handle import AsyncExecutionHandle, ExecutionHandle
from capsule.client.portal import Portal
from capsule.client.progress import Progress
from capsule.client.results import Collector, Result
from capsule.client.sync_comms import Comms
from capsule.client.sync_execution import Events, Execution, OnEvent, OnInput
from capsule_protocol.errors import SessionError

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from types import TracebackType

    from capsule.client.answers import RestoreReport, SaveReport
    from capsule.client.approvals import OnApproval
    from capsule.client.execution import AsyncExecution
    from capsule.client.files import Files
    from capsule.client.inputs import Json
    from capsule.client.options import ClientOptions, WorkerOptions
    from capsule.client.promises import Action
    from capsule.client.session import AsyncSession, OnBackground
    from capsule.client.sources import Source
    from capsule.config import NodeConfig
    from capsule.events import Event, InputRequest
    from capsule.node.info import NodeInfo, PromiseSummary, SessionSummary, SettledPromise
    from capsule.node.session import SessionInfo
    from capsule_pool import OnEvent as OnPoolEvent


class Client:
    """Runs code in worker processes of this machine; the arguments are those of AsyncClient.

    Use it in `with`, or call `close()`, which ends the node with all its processes and files. Any thread may use it,
    and its sessions. Ctrl-C in a thread that waits interrupts what it waits for, at once; the session stays usable. In
    a fork it raises SessionError. Raises ArgumentError for an unknown option or a bad value.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        config: str | os.PathLike[str] | NodeConfig | None = None,
        on_pool_event: OnPoolEvent | None = None,
        on_approval: OnApproval | None = None,
        key: str | os.PathLike[str] | None = None,
        server_key: str | None = None,
        **options: Unpack[ClientOptions],
    ) -> None:
        self._inner = AsyncClient(
            address,
            config=config,
            on_pool_event=on_pool_event,
            on_approval=on_approval,
            key=key,
            server_key=server_key,
            **options,
        )
        self._portal = Portal(self._inner.close)
        # Also when the client is dropped, and when the interpreter ends.
        self._finalizer = weakref.finalize(self, self._portal.stop)

    def __repr__(self) -> str:
        return repr(self._inner).replace("AsyncClient", "Client", 1)

    def session(
        self,
        environment: str = "default",
        *,
        env: Mapping[str, str | None] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        name: str | None = None,
        files: Files | None = None,
        on_background: OnBackground | None = None,
        **options: Unpack[WorkerOptions],
    ) -> Session:
        """A new session, ready to run code; use it in `with`, or call its `close()`.

        `env` adds variables (None removes one), `cwd` is the working directory, at a `tcp://` address one of the node's
        machine. `files` are written into it before the session is ready: names, and for each its content or the Path of
        a file to copy; without `cwd` they are in a new directory, which ends with the session. Further options are the
        fields of SessionOptions. `on_background`
        gets output that comes after its execution's verdict, on the client's own thread. Raises ArgumentError for a
        bad argument, EnvironmentFailed, WorkerLost, SessionError.
        """
        opener = self._inner.session(
            environment, env=env, cwd=cwd, name=name, files=files, on_background=on_background, **options
        )
        return Session(self, self._portal, self._portal.call(opener.open))

    def info(self) -> NodeInfo:
        """How many sessions there are, and the pools by environment, as they are now."""
        return self._portal.call(self._inner.info)

    def attach(self, name: str, *, watch: bool = False, on_background: OnBackground | None = None) -> Session:
        """A session of a node elsewhere that is there already, by name or id; whoever had it loses it.

        With `watch` it stays whose it is, and this client looks on: `session.watch()` gives all events.
        Raises SessionError `session_unknown`, and ArgumentError where the node is in this process.
        """
        return Session(
            self, self._portal, self._portal.call(self._inner.attach, name, watch=watch, on_background=on_background)
        )

    def execution(self, execution_id: str) -> ExecutionHandle:
        """An execution of a node elsewhere, by the id that its handle or its result has; its session may be closed.

        Raises ArgumentError where the node is in this process.
        """

        async def made() -> AsyncExecutionHandle:
            return self._inner.execution(execution_id)

        return ExecutionHandle(self._portal, self._portal.call(made))

    def sessions(self) -> list[SessionSummary]:
        """The sessions of a node elsewhere, also those of other clients.

        Raises ArgumentError where the node is in this process.
        """
        return self._portal.call(self._inner.sessions)

    def interrupt(self, name: str) -> bool:
        """Interrupt what a session of a node elsewhere runs, by name or id, whoever has it; False if nothing runs.

        Raises SessionError `session_unknown`, and ArgumentError where the node is in this process.
        """
        return self._portal.call(self._inner.interrupt, name)

    def kill(self, name: str) -> None:
        """End a session of a node elsewhere, by name or id; whoever has it is told (`session_killed`).

        Raises SessionError `session_unknown`, and ArgumentError where the node is in this process.
        """
        self._portal.call(self._inner.kill, name)

    def promises(self) -> list[PromiseSummary]:
        """What waits for a verdict at a node elsewhere: questions of running code, and executions.

        Raises SessionError `unsupported` if the node keeps no promises, and ArgumentError where it is in this process.
        """
        return self._portal.call(self._inner.promises)

    def promise(self, promise: str) -> PromiseSummary:
        """A promise of a node elsewhere, by its id, settled or not.

        Raises SessionError `promise_unknown`, and ArgumentError where the node is in this process.
        """
        return self._portal.call(self._inner.promise, promise)

    def settle_promise(
        self, promise: str, action: Action = "resolve", value: object = None, message: str = ""
    ) -> SettledPromise:
        """Settle a promise of a node elsewhere, as `AsyncClient.settle_promise` does; the first verdict counts."""
        return self._portal.call(self._inner.settle_promise, promise, action, value, message)

    @property
    def approvals(self) -> Approvals:
        """The calls of capabilities that wait for somebody who approves them."""
        return Approvals(lambda: self._inner.approvals, self._portal)

    def save(
        self,
        name: str,
        path: str | os.PathLike[str],
        *,
        names: Iterable[str] | None = None,
        timeout: float | None = None,
    ) -> SaveReport:
        """Save a session of a node elsewhere to a file, by name or id, whoever has it: as `session.save` does.

        Raises SessionError `session_unknown`, and ArgumentError where the node is in this process.
        """
        return self._portal.call(self._inner.save, name, path, names=names, timeout=timeout)

    def restore(
        self,
        name: str,
        source: Source,
        *,
        names: Iterable[str] | None = None,
        timeout: float | None = None,
        allow_other_interpreter: bool = False,
    ) -> RestoreReport:
        """Restore a file into a session of a node elsewhere, by name or id, whoever has it: as `session.restore` does.

        Raises SessionError `session_unknown`, and ArgumentError where the node is in this process.
        """
        return self._portal.call(
            self._inner.restore,
            name,
            source,
            names=names,
            timeout=timeout,
            allow_other_interpreter=allow_other_interpreter,
        )

    def drain(self, *, wait: bool = False) -> None:
        """Have a node elsewhere end as SIGTERM does: nothing new is taken, what runs may end. `wait` until it has.

        Raises ArgumentError where the node is in this process.
        """
        self._portal.call(self._inner.drain, wait=wait)

    def close(self) -> None:
        """Close all sessions and end the node; again, or in a fork: nothing."""
        self._portal.stop()

    def __enter__(self) -> Self:
        self._portal.check()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Session(Comms):
    """A worker process of one's own that keeps its state from one `run` to the next; made by `client.session()`.

    Executions run one after another, in order of submission. Every method raises SessionError when the session or its
    client is closed. Closing it ends the worker with all its processes and files.
    """

    def __init__(self, client: Client, portal: Portal, inner: AsyncSession) -> None:
        super().__init__(portal, inner)
        self._client = client  # a client that is dropped closes its sessions

    def __repr__(self) -> str:
        return repr(self._inner).replace("AsyncSession", "Session", 1)

    @property
    def id(self) -> str:
        """`s_` and 16 characters."""
        return self._inner.id

    @property
    def name(self) -> str:
        """The name that the session was given; its id without one."""
        return self._inner.name

    @property
    def epoch(self) -> int:
        """1 for its first worker, and 1 more for each whose state was lost; as far as this client knows."""
        return self._inner.epoch

    @property
    def state(self) -> str:
        """`starting`, `ready`, `busy`, `restarting`, `dead` or `closed`."""
        return self._inner.state

    def run(
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

        `timeout` in seconds, counted from the start of the code. Without `on_input`, `input()` raises EOFError. Both
        callbacks are called in the calling thread. `progress`: output and elapsed time are shown, in a terminal, in a
        notebook, or as plain text. `key` is refused in library mode. Raises ArgumentError
        for a bad argument, SessionError when the session cannot run code, and what the callbacks raised.
        """
        check_callback(on_event, "on_event")
        check_callback(on_input, "on_input")
        if check_flag(progress, "progress"):
            with Progress() as shown:
                on_event, on_input = _watched(shown, on_event), _asked(shown, on_input)
                return self.run(code, timeout=timeout, key=key, on_event=on_event, on_input=on_input, **options)
        if on_event is None and on_input is None:
            return self._portal.call(self._inner.run, code, timeout=timeout, key=key, **options)
        collector = Collector()
        with self.stream(code, timeout=timeout, key=key, on_input=on_input, **options) as events:
            for event in events:
                collector.feed(event)
                if on_event is not None:
                    on_event(event)
        assert collector.result is not None
        return collector.result

    def submit(
        self,
        code: str,
        *,
        timeout: float | None = None,
        key: str | None = None,
        batch: str = "",
        **options: Unpack[ExecuteOptions],
    ) -> Execution:
        """Queue `code` and return a handle at once; executions run in the order of submission.

        `batch` names what belongs together for `stop_on_error`. There is no thread that could answer questions of the
        code meanwhile, so `on_input` is an option of `run` and `stream`. Raises as `run` does.
        """
        checked = check_execute(options)  # the asynchronous one has an option more

        def submit() -> AsyncExecution:
            return self._inner.submit(code, timeout=timeout, key=key, batch=batch, **checked)

        return Execution(self, self._portal, self._begin(submit))

    def stream(
        self,
        code: str,
        *,
        timeout: float | None = None,
        key: str | None = None,
        on_input: OnInput | None = None,
        **options: Unpack[ExecuteOptions],
    ) -> Events:
        """Run `code` and iterate over its events, the last of which is `Finished`.

        Use it in `with`: leaving it early cancels the execution. A reader that is slow slows the code down, once
        `buffer_bytes` are waiting. `on_input` is called in the iterating thread. Raises as `run` does.
        """
        check_callback(on_input, "on_input")

        def stream() -> AsyncExecution:
            allow = on_input is not None
            inner = self._inner.start(code, options, timeout=timeout, key=key, allow_input=allow)
            inner.claim()
            return inner

        return Events(self, self._portal, self._begin(stream), on_input)

    def run_all(
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
        checked = check_codes(codes)  # here, because a generator belongs to the calling thread
        return self._portal.call(self._inner.run_all, checked, timeout=timeout, stop_on_error=stop_on_error, **options)

    def interrupt(self) -> bool:
        """Interrupt the running execution; False if none runs. Its verdict comes to whoever waits for it."""
        return self._portal.call(self._inner.interrupt)

    def cancel(self, execution_id: str) -> bool:
        """Interrupt an execution, or take it out of the queue; False if it had ended or is unknown."""
        return self._portal.call(self._inner.cancel, execution_id)

    def restart(self) -> None:
        """Replace the worker by a new one: all state of the code is gone, what was queued gets its verdict."""
        self._portal.call(self._inner.restart)

    def info(self) -> SessionInfo:
        """State, process id, counts, memory (bytes), last heartbeat, queue, negotiated protocol."""
        return self._portal.call(self._inner.info)

    def detach(self) -> None:
        """Leave the session to itself at a node elsewhere: `client.attach(name)` finds it again.

        Executions that run go on, and wait for nobody. Raises ArgumentError where the node is in this process.
        """
        self._portal.call(self._inner.detach)

    def watch(self) -> Iterator[Event]:
        """All events of all executions, of a session that was attached to with `watch=True`, until the session ends.

        Raises as `AsyncSession.watch` does.
        """
        self._inner.check_watching()
        while events := self._portal.call(self._inner.next_watched):
            yield from events

    def close(self) -> None:
        """End the worker, its processes and files; again, or after the client's end: nothing."""
        try:
            self._portal.call(self._inner.close)
        except SessionError as error:
            if error.code != "client_closed":
                raise

    def __enter__(self) -> Self:
        self._portal.call(self._inner.__aenter__)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _begin(self, begin: Callable[[], AsyncExecution]) -> AsyncExecution:
        """Begin an execution on the loop; what Ctrl-C overtakes is cancelled, because nobody has its handle."""
        begun: list[AsyncExecution] = []

        async def work() -> None:
            begun.append(begin())

        def abandon() -> None:
            for execution in begun:
                execution.abandon()

        try:
            self._portal.call(work)
        except BaseException:
            self._portal.soon(abandon)
            raise
        return begun[0]


def _watched(shown: Progress, on_event: OnEvent | None) -> OnEvent:
    def call(event: Event) -> None:
        shown.feed(event)
        if on_event is not None:
            on_event(event)

    return call


def _asked(shown: Progress, on_input: OnInput | None) -> OnInput | None:
    if on_input is None:
        return None

    def call(request: InputRequest) -> Json:
        with shown.asking():
            return on_input(request)

    return call
