"""The synchronous client: a thin shell around the asynchronous one, which lives on a thread with an event loop."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Self, Unpack

from capsule.client.aio import AsyncClient
from capsule.client.approvals import Approvals
from capsule.client.handle import AsyncExecutionHandle, ExecutionHandle
from capsule.client.portal import Portal
from capsule.client.sync_session import Session

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping
    from types import TracebackType

    from capsule.client.answers import RestoreReport, SaveReport
    from capsule.client.approvals import OnApproval
    from capsule.client.files import Files
    from capsule.client.options import ClientOptions, WorkerOptions
    from capsule.client.promises import Action
    from capsule.client.session import OnBackground
    from capsule.client.sources import Source
    from capsule.config import NodeConfig
    from capsule.node.info import NodeInfo, PromiseSummary, SessionSummary, SettledPromise
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

    def attach(
        self, name: str, *, watch: bool = False, share: bool = False, on_background: OnBackground | None = None
    ) -> Session:
        """A session of a node elsewhere that is there already, by name or id; whoever had it loses it.

        With `watch` it stays whose it is, and this client looks on: `session.watch()` gives all events. With `share`
        it does too, and this client has code of its own run in it. Raises SessionError `session_unknown`, and
        ArgumentError for both, and where the node is in this process.
        """
        found = self._portal.call(self._inner.attach, name, watch=watch, share=share, on_background=on_background)
        return Session(self, self._portal, found)

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
