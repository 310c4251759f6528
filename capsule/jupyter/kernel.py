"""One Jupyter kernel: sockets that stay, and a session behind them that may be replaced."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from contextlib import suppress
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from capsule.jupyter import translate
from capsule.jupyter.connection import CHANNELS
from capsule.jupyter.inputs import Inputs
from capsule.jupyter.shell import Common, Shell
from capsule.jupyter.sockets import Sockets
from capsule.jupyter.subshells import ACTIONS, Subshells
from capsule.jupyter.usage import Usage
from capsule.node.tasks import Tasks
from capsule_protocol.errors import CapsuleError, SessionError, WorkerLost

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from capsule.config import SessionOptions
    from capsule.jupyter.connection import Connection
    from capsule.jupyter.inner import AnyNode, AnySession
    from capsule.jupyter.messages import Message

logger = logging.getLogger("capsule.jupyter")

_DEADLY = frozenset({signal.SIGTERM, signal.SIGKILL, signal.SIGHUP, signal.SIGQUIT})
ENDED = 0
LOST = 1
"""The exit code of a kernel whose worker died by itself."""


class Kernel:
    """Binds its sockets when it is made; `start` gives it a session. `on_exit` is told when it has none any more.

    `over`: it was told to end, and not to start again. Raises NodeError if it cannot bind.
    """

    def __init__(self, name: str, node: AnyNode, connection: Connection) -> None:
        self.on_exit: Callable[[int], None] | None = None
        self.over = False
        self._node = node
        self._tasks = Tasks()
        self._session: AnySession | None = None
        self._usage = Usage()
        self._inputs = Inputs()
        common = Common(lambda: self._sockets, self._inputs, self._about)
        self._shell = Shell(common)
        self._subshells = Subshells(common, self._tasks)
        handlers = {"shell": self._on_shell, "control": self._on_control, "stdin": self._inputs.take}
        self._sockets = self._inputs.sockets = Sockets(name, connection, handlers)
        self.connection = self._sockets.connection
        self._tasks.start(self._shell.run())

    @property
    def alive(self) -> bool:
        """Whether it has a session."""
        return self._session is not None

    async def start(self, options: SessionOptions) -> int:
        """Open a session, in the place of one that is there; what has come meanwhile runs in it.

        Answers its process id. Raises as opening one does.
        """
        await self._drop_session()
        session = await self._node.open_session(options)
        self._session = session
        session.on_state = self._on_state
        info = session.info()
        if info.state == "dead":  # since it was opened; nobody was told
            await self._drop_session()
            text, hint = "the worker ended before the kernel could begin", "Start the kernel again."
            raise WorkerLost("worker_lost", text, hint=hint, retryable=True)
        self._subshells.begin(session)
        self._shell.begin(session)
        return info.pid

    def signal(self, number: int) -> None:
        """Do what a process would do with a signal: SIGINT interrupts, others end it, or go to the worker."""
        if number == signal.SIGINT:
            self._tasks.start(self._interrupt())
        elif number in _DEADLY:
            self._tasks.start(self.end(-number))
        else:
            self._tasks.start(self._pass_on(number))

    async def end(self, code: int = ENDED) -> None:
        """End the session with all its processes; the sockets stay. Idempotent."""
        lives = self._session is not None
        try:
            await self._drop_session()
        finally:
            if lives and self.on_exit is not None:
                self.on_exit(code)

    async def close(self) -> None:
        """End all of it. Idempotent."""
        self.on_exit = None
        try:
            await self.end()
        finally:
            await self._tasks.close()
            await self._sockets.close()

    # --- inside ---

    async def _pass_on(self, number: int) -> None:
        if self._session is not None:
            with suppress(ProcessLookupError, CapsuleError):
                pid = self._session.info().pid
                if pid:  # 0: it has no worker at this moment, and to the system this would mean ourselves
                    os.kill(pid, number)

    def _on_shell(self, to: list[bytes], message: Message) -> None:
        subshell = message["header"].get("subshell_id")
        if message["header"]["msg_type"] == "shutdown_request":  # some still send it here
            self._answer("shell", to, message)
        elif subshell is None:
            self._shell.take(to, message)
        else:
            self._take_aside(subshell, to, message)

    def _take_aside(self, subshell: object, to: list[bytes], message: Message) -> None:
        """Something for a subshell, which may be none."""
        try:
            shell = self._subshells.find(subshell)
        except SessionError as error:
            self._shell.refuse(to, message, error)
        else:
            shell.take(to, message)

    def _on_control(self, to: list[bytes], message: Message) -> None:
        self._answer("control", to, message)

    def _answer(self, channel: str, to: list[bytes], message: Message) -> None:
        self._tasks.start(self._control(channel, to, message))

    async def _control(self, channel: str, to: list[bytes], message: Message) -> None:
        parent, kind = message["header"], str(message["header"]["msg_type"])
        sockets = self._sockets
        sockets.publish("status", {"execution_state": "busy"}, parent)
        try:
            content = await self._do(kind, message["content"])
        except CapsuleError as error:
            content = translate.refusal(error)
        except Exception:
            logger.exception("%s failed", kind)
            content = translate.refusal(SessionError("internal_error", f"{kind} failed; see the node's log"))
        reply = kind.replace("_request", "_reply")
        sockets.reply(channel, reply, content, parent, to)
        if kind == "shutdown_request":
            sockets.publish(reply, content, parent)
        sockets.publish("status", {"execution_state": "idle"}, parent)
        if kind == "shutdown_request" and content.get("status") == "ok":
            self._tasks.start(self.end())

    async def _do(self, kind: str, content: Message) -> Message:
        if kind in translate.ABOUT:
            return self._about(kind)
        if kind in ACTIONS:
            return await self._subshells.answer(kind, content)
        if kind in {"debug_request", "usage_request"}:
            if self._session is None:
                raise SessionError("session_restarting", "the kernel has no session at this moment")
            if kind == "usage_request":
                return self._usage.tell(self._session.info())
            reply = await self._session.ask("debug", {"request": content})
            response: Message = reply["response"]
            return response
        if kind == "interrupt_request":
            await self._interrupt()
            return {"status": "ok"}
        if kind == "shutdown_request":
            restart = translate.field(content, "restart", bool, default=False)
            self.over = not restart
            self._subshells.end()
            self._shell.end()  # what comes from here on is for the next session
            return {"status": "ok", "restart": restart}
        raise SessionError("unsupported", f"this kernel does not do {kind[:80]!r} on this channel")

    def _about(self, kind: str) -> Message:
        if kind == "connect_request":
            ports = {f"{channel}_port": getattr(self.connection, f"{channel}_port") for channel in CHANNELS}
            return {"status": "ok", **ports}
        return translate.kernel_info(version("capsule-exec"))

    def _interrupt(self) -> Coroutine[Any, Any, None]:
        """End what runs at the moment of the call, in all shells."""
        return _all([self._shell.interrupt(), *self._subshells.interrupts()])

    def _on_state(self, state: str, reason: str) -> None:
        """The session has ended by itself, or somebody else has ended it."""
        if state in {"dead", "closed"}:
            logger.warning("the session of a kernel is %s: %s", state, reason)
            self._tasks.start(self.end(LOST))

    async def _drop_session(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            self._subshells.end()
            self._shell.end()
            session.on_state = None
            await session.close()


async def _all(works: list[Coroutine[Any, Any, None]]) -> None:
    await asyncio.gather(*works)
