"""The subshells of a kernel (JEP 91): what is asked of them on the control channel, and their shells."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from capsule.jupyter import translate
from capsule.jupyter.shell import Common, Shell
from capsule_protocol.errors import CapsuleError, SessionError
from capsule_protocol.ids import SUBSHELL, new_id

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from capsule.jupyter.inner import AnySession
    from capsule.jupyter.messages import Message
    from capsule.node.tasks import Tasks

ACTIONS = {"create_subshell_request": "open", "delete_subshell_request": "close", "list_subshell_request": "list"}


class Subshells:
    """Those of the session that the kernel has now: a restart ends them."""

    def __init__(self, common: Common, tasks: Tasks) -> None:
        self._common = common
        self._tasks = tasks
        self._session: AnySession | None = None
        self._shells: dict[str, Shell] = {}

    def begin(self, session: AnySession) -> None:
        """The kernel has this session."""
        self._session = session

    def end(self) -> None:
        """The session is over."""
        self._session = None
        shells, self._shells = self._shells, {}
        for shell in shells.values():
            shell.close()

    def interrupts(self) -> list[Coroutine[Any, Any, None]]:
        """What ends all that runs in them at the moment of the call."""
        return [shell.interrupt() for shell in self._shells.values()]

    def find(self, name: object) -> Shell:
        """The shell of one. Raises SessionError `subshell_unknown`."""
        shell = self._shells.get(name) if isinstance(name, str) else None
        if shell is None:
            raise SessionError("subshell_unknown", f"there is no subshell {name!r:.80}", hint="a restart ends them all")
        return shell

    async def answer(self, kind: str, content: Message) -> Message:
        """The content of a reply on the control channel."""
        session = self._session
        if session is None:
            raise SessionError("session_restarting", "the kernel has no session at this moment")
        action = ACTIONS[kind]
        if action == "list":
            return {"status": "ok", "subshell_id": list(self._shells)}
        if action == "close":
            closed = translate.field(content, "subshell_id", str)
            self.find(closed)
            await session.ask("subshell", {"action": action, "subshell": closed})
            self._shells.pop(closed).close()
            return {"status": "ok"}
        name = new_id(SUBSHELL)
        try:
            await session.ask("subshell", {"action": action, "subshell": name})
        except CapsuleError:
            self._tasks.start(_forget(session, name))
            raise
        shell = self._shells[name] = Shell(self._common, name, session)
        self._tasks.start(shell.run())
        return {"status": "ok", "subshell_id": name}


async def _forget(session: AnySession, name: str) -> None:
    """Close one that nobody was told of: it may be there all the same."""
    with suppress(CapsuleError):
        await session.ask("subshell", {"action": "close", "subshell": name})
