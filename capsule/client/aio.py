"""The asynchronous client: a node of its own in this process, and the sessions it opens."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, Unpack

from capsule.client.approvals import AsyncApprovals, listen
from capsule.client.arguments import check_callback, check_flag, check_text, check_timeout
from capsule.client.checkpoints import Saving, check_names
from capsule.client.credentials import check_credentials
from capsule.client.finish import finish
from capsule.client.handle import AsyncExecutionHandle
from capsule.client.loops import check_loop
from capsule.client.options import ClientOptions, WorkerOptions, build_config, build_options
from capsule.client.promises import Action, check_settlement
from capsule.client.remote import RemoteNode
from capsule.client.session import AsyncSession, OnBackground
from capsule.node.node import Node
from capsule.platforms import check_node
from capsule.runtime import check_address
from capsule_protocol.errors import ArgumentError, SessionError

if TYPE_CHECKING:
    import os
    from collections.abc import Generator, Iterable, Mapping
    from types import TracebackType

    from capsule.client.answers import RestoreReport, SaveReport
    from capsule.client.approvals import OnApproval
    from capsule.client.files import Files
    from capsule.client.inner import AnyNode
    from capsule.client.sources import Source
    from capsule.config import NodeConfig, SessionOptions
    from capsule.keys import Credentials
    from capsule.node.info import NodeInfo, PromiseSummary, SessionSummary, SettledPromise
    from capsule_pool import OnEvent

MAX_NAME = 200
"""Characters that a session's name may have, or an execution's id."""
MAX_PROMISE = 1000
"""Characters that a promise's id may have."""


class AsyncClient:
    """Runs code in worker processes of this machine.

    Without an `address` (library mode) the node is in this process: `config` is a NodeConfig or the path of a
    `capsule.toml`; `options` are the fields of NodeConfig and come before it; `on_pool_event` is told what happens in
    the pools; `on_approval` is asked when a call needs an approval, and answers "once", "session" or None.
    `address` is that of a node that `capsule serve` runs: "auto" for this user's own, `ipc://PATH` or
    `tcp://HOST:PORT`; that one wants a `key`: a key, a token, or the path of a file with one, else `CAPSULE_KEY`.
    `server_key` is the public key of the node, if the key does not hold it.
    Use it in `async with`, or call `close()`, which ends its sessions, and the node if it is in this process, with all
    processes and files. It belongs to one event loop. Raises ArgumentError for an unknown option or a bad value.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        config: str | os.PathLike[str] | NodeConfig | None = None,
        on_pool_event: OnEvent | None = None,
        on_approval: OnApproval | None = None,
        key: str | os.PathLike[str] | None = None,
        server_key: str | None = None,
        **options: Unpack[ClientOptions],
    ) -> None:
        self._address = None if address is None else check_address(address)
        self._credentials = _credentials(self._address, key, server_key)
        check_callback(on_pool_event, "on_pool_event")
        check_callback(on_approval, "on_approval")
        own = {"config": config, "on_pool_event": on_pool_event, "on_approval": on_approval}
        given = next(iter([*options, *(name for name, value in own.items() if value is not None)]), None)
        if address is not None and given is not None:
            raise ArgumentError(given, "belongs to the node at the address", allowed="nothing but the address")
        self._config = build_config(options, config)
        self._on_pool_event = on_pool_event
        self._on_approval = on_approval
        self._node: AnyNode | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"sessions={len(self._node.sessions) if self._node else 0}"
        return f"<{type(self).__name__} {state}>"

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
    ) -> SessionOpener:
        """A new session: `async with client.session() as session`, or `session = await client.session()`.

        `env` adds variables (None removes one), `cwd` is the working directory, at a `tcp://` address one
        of the node's machine. `files` are written into it before the
        session is ready: names, and for each its content or the Path of a file to copy; without `cwd` they are in a
        new directory, which ends with the session. Further options are the fields of SessionOptions. `on_background`
        gets output that comes after its execution's verdict. Raises ArgumentError for a bad argument at once; opening
        raises EnvironmentFailed, WorkerLost, SessionError, and ArgumentError for what the worker cannot do.
        """
        check_callback(on_background, "on_background")
        checked = build_options(environment, options, env=env, cwd=cwd, name=name, files=files, address=self._address)
        if cwd is None and self._address is None and self._is_confined(environment):
            checked = checked.model_copy(update={"cwd": None})  # it could not go where the caller is
        self._check_open()
        return SessionOpener(self, checked, on_background)

    def _is_confined(self, environment: str) -> bool:
        found = self._config.environments.get(environment)
        return found is not None and found.sandbox != "none"

    async def info(self) -> NodeInfo:
        """How many sessions there are, and the pools by environment, as they are now."""
        self._check_open()
        node = self._started()
        return node.info() if isinstance(node, Node) else await node.info()

    async def attach(
        self, name: str, *, watch: bool = False, share: bool = False, on_background: OnBackground | None = None
    ) -> AsyncSession:
        """A session of a node elsewhere that is there already, by name or id; whoever had it loses it.

        With `watch` it stays whose it is, and this client looks on: `session.watch()` gives all events, and all that
        would change the session raises SessionError `session_watched`. With `share` it stays whose it is too, and this
        client has code of its own run in it, in one line with what others run: what would end the session, or concerns
        their code, raises SessionError `session_shared`, and to close it is to leave it. Raises SessionError
        `session_unknown`, `too_many_watchers`, and ArgumentError for both, and where the node is in this process.
        """
        check_callback(on_background, "on_background")
        watched = check_flag(watch, "watch")
        shared = check_flag(share, "share")
        if watched and shared:
            raise ArgumentError("share", "does not go with watch", allowed="one way to have a session")
        found = await self._elsewhere("attach").attach(check_text(name, "name"), watch=watched, share=shared)
        return AsyncSession(found, on_background)

    def execution(self, execution_id: str) -> AsyncExecutionHandle:
        """An execution of a node elsewhere, by the id that its handle or its result has; its session may be closed.

        Raises ArgumentError where the node is in this process.
        """
        return AsyncExecutionHandle(self._elsewhere("execution"), _check_name(execution_id, "execution_id"))

    async def sessions(self) -> list[SessionSummary]:
        """The sessions of a node elsewhere, also those of other clients.

        Raises ArgumentError where the node is in this process.
        """
        return await self._elsewhere("sessions").summaries()

    async def interrupt(self, name: str) -> bool:
        """Interrupt what a session of a node elsewhere runs, by name or id, whoever has it; False if nothing runs.

        Raises SessionError `session_unknown`, and ArgumentError where the node is in this process.
        """
        return await self._elsewhere("interrupt").interrupt(_check_name(name))

    async def kill(self, name: str) -> None:
        """End a session of a node elsewhere, by name or id; whoever has it is told (`session_killed`).

        Raises SessionError `session_unknown`, and ArgumentError where the node is in this process.
        """
        await self._elsewhere("kill").kill(_check_name(name))

    async def promises(self) -> list[PromiseSummary]:
        """What waits for a verdict at a node elsewhere: questions of running code, and executions.

        Raises SessionError `unsupported` if the node keeps no promises, and ArgumentError where it is in this process.
        """
        return await self._elsewhere("promises").promises()

    async def promise(self, promise: str) -> PromiseSummary:
        """A promise of a node elsewhere, by its id, settled or not.

        Raises SessionError `promise_unknown`, and ArgumentError where the node is in this process.
        """
        return await self._elsewhere("promise").promise(_check_name(promise, "promise", MAX_PROMISE))

    async def settle_promise(
        self, promise: str, action: Action = "resolve", value: object = None, message: str = ""
    ) -> SettledPromise:
        """Settle a promise of a node elsewhere; the first verdict counts, and is the answer, whoever gave it.

        The code that asks gets the `value` of "resolve", EOFError by "reject", InputCanceledError by "cancel", with the
        `message`. Of an execution there is only "cancel", which interrupts it. Raises SessionError `promise_unknown`,
        `answer_refused`, and ArgumentError where the node is in this process.
        """
        node = self._elsewhere("settle_promise")
        id_ = _check_name(promise, "promise", MAX_PROMISE)
        return await node.settle(id_, *check_settlement(action, value, message))

    @property
    def approvals(self) -> AsyncApprovals:
        """The calls of capabilities that wait for somebody who approves them."""
        self._check_open()
        return AsyncApprovals(self._started())

    async def save(
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
        saving, target = self._saving(name, "save"), Path(check_text(path, "path"))
        return await saving.save(target, check_names(names), check_timeout(timeout))

    async def restore(
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
        saving, allow = self._saving(name, "restore"), check_flag(allow_other_interpreter, "allow_other_interpreter")
        return await saving.restore(source, check_names(names), check_timeout(timeout), allow_other_interpreter=allow)

    async def drain(self, *, wait: bool = False) -> None:
        """Have a node elsewhere end as SIGTERM does: nothing new is taken, what runs may end. `wait` until it has.

        Raises ArgumentError where the node is in this process.
        """
        await self._elsewhere("drain").drain(wait=wait)

    async def open(self, options: SessionOptions, on_background: OnBackground | None = None) -> AsyncSession:
        """A new session from checked options."""
        self._check_open()
        return AsyncSession(await self._started().open_session(options), on_background)

    async def close(self) -> None:
        """Close all sessions and the node; again: nothing."""
        check_loop(self._loop, "the client")
        self._closed = True
        if self._node is not None:
            await finish(self._node.close())

    async def __aenter__(self) -> Self:
        self._check_open()
        check_loop(self._loop, "the client")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _started(self) -> AnyNode:
        """The node, from its first use on."""
        check_loop(self._loop, "the client")
        if self._node is None:
            self._loop = asyncio.get_running_loop()
            if self._address is not None:
                self._node = RemoteNode(self._address, self._credentials)
            else:
                check_node()
                self._node = node = Node(self._config, on_pool_event=self._on_pool_event)
                if self._on_approval is not None:
                    listen(node, self._on_approval)
        return self._node

    def _elsewhere(self, what: str) -> RemoteNode:
        """The node, if it is one that other clients use too."""
        self._check_open()
        if self._address is None:
            message = "sessions of a node in this process belong to the client that opened them"
            raise ArgumentError(what, message, allowed="a client with an address", code="unsupported")
        node = self._started()
        assert isinstance(node, RemoteNode)
        return node

    def _saving(self, name: str, what: str) -> Saving:
        """The session that is to be saved or restored."""
        node = self._elsewhere(what)
        return Saving(node.checkpoints(_check_name(name)), node.own, lambda: self._closed)

    def _check_open(self) -> None:
        if self._closed:
            raise SessionError("client_closed", "the client is closed")


def _credentials(address: str | None, key: str | os.PathLike[str] | None, server_key: str | None) -> Credentials | None:
    if address is not None:
        return check_credentials(address, key, server_key)
    if key is None and server_key is None:
        return None
    raise ArgumentError("key" if key is not None else "server_key", "belongs to an address", allowed="None without one")


class SessionOpener:
    """A session that is about to be opened: await it, or enter it."""

    def __init__(self, client: AsyncClient, options: SessionOptions, on_background: OnBackground | None) -> None:
        self._client = client
        self._options = options
        self._on_background = on_background
        self._session: AsyncSession | None = None

    async def open(self) -> AsyncSession:
        """What awaiting it does."""
        return await self._client.open(self._options, self._on_background)

    def __await__(self) -> Generator[Any, Any, AsyncSession]:
        return self.open().__await__()

    async def __aenter__(self) -> AsyncSession:
        self._session = await self.open()
        return self._session

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()


def _check_name(name: str, argument: str = "name", most: int = MAX_NAME) -> str:
    """A name or an id, which the node would not answer if it were none. Raises ArgumentError."""
    if not 1 <= len(check_text(name, argument)) <= most:
        raise ArgumentError(argument, f"has {len(name)} characters", allowed=f"1 to {most} characters")
    return name
