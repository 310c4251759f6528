"""What operators ask for: which sessions there are, to interrupt or end one of them, and to end the node."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Literal

from capsule_protocol.errors import ArgumentError, SessionError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from capsule.node.front.hosted import Hosted
    from capsule.node.front.requests import Caller, Office
    from capsule_protocol.envelope import Envelope

Action = Literal["sessions", "interrupt_session", "kill_session", "drain"]

OPERATORS = frozenset({"operator", "admin"})
"""The roles that may do these things to what belongs to others."""
AT_ONCE = 64
"""Sessions told of before others have their turn: the memory of each is read from the system."""
FEW = 10
"""Ids that an error lists at most."""


class Operations:
    """Those of one connection. Everybody may do them to sessions of his own; others do not exist for most."""

    def __init__(self, desk: Office, caller: Caller) -> None:
        self._desk = desk
        self._caller = caller
        self.kinds: dict[str, Callable[[Any, Envelope], Coroutine[Any, Any, None]]] = {
            "sessions": self._sessions,
            "interrupt_session": self._interrupt,
            "kill_session": self._kill,
            "drain": self._drain,
        }

    async def _sessions(self, _message: Any, envelope: Envelope) -> None:
        everything = _may(self._caller, "sessions")
        rows: list[dict[str, Any]] = []
        for hosted in self._desk.registry:
            if everything or hosted.owner == self._caller.owner:
                rows.append(_row(hosted))
                if len(rows) % AT_ONCE == 0:
                    await asyncio.sleep(0)
        self._caller.answer("info_reply", {"info": {"sessions": rows}}, envelope)

    async def _interrupt(self, message: Any, envelope: Envelope) -> None:
        done = await self._find(message.name, "interrupt_session").session.interrupt()
        self._caller.answer("info_reply", {"info": {"done": done}}, envelope)

    async def _kill(self, message: Any, envelope: Envelope) -> None:
        hosted = self._find(message.name, "kill_session")
        await self._desk.registry.kill(hosted)
        self._caller.answer("info_reply", {"info": {"session": hosted.session.id}}, envelope)

    async def _drain(self, message: Any, envelope: Envelope) -> None:
        if not _may(self._caller, "drain"):
            raise SessionError("unsupported", f"only {' and '.join(sorted(OPERATORS))} may drain the node")
        self._desk.drain()
        if not message.wait:  # whoever waits is answered by the end
            executions = sum(hosted.session.under_way for hosted in self._desk.registry)
            self._caller.answer("info_reply", {"info": {"draining": True, "executions": executions}}, envelope)

    def _find(self, name: str, action: Action) -> Hosted:
        """The session with this name or id: the caller's own, or else anybody's that he may touch."""
        registry = self._desk.registry
        try:
            return registry.find(self._caller.principal, name)
        except SessionError:
            found = [hosted for hosted in registry if name in {hosted.session.id, hosted.session.name}]
            if not found or not _may(self._caller, action):
                raise
        if len(found) > 1:
            ids = [hosted.session.id for hosted in found[:FEW]]
            raise ArgumentError("name", f"{len(found)} owners have a session {name!r}", allowed=f"an id: {ids}")
        return found[0]


def _may(caller: Caller, action: Action) -> bool:  # noqa: ARG001 - all of them need the same role so far
    """Whether the caller may do this to what is not his own. Who has no role is the user whose node it is."""
    role = getattr(caller, "role", None)
    return role is None or role in OPERATORS


def _row(hosted: Hosted) -> dict[str, Any]:
    session = hosted.session
    info = session.info()
    return {
        "id": info.id,
        "name": info.name,
        "owner": hosted.owner,
        "environment": info.environment,
        "state": info.state,
        "pid": info.pid,
        "age": hosted.age,
        "memory": info.memory,
        "executions": info.executions,
        "waiting": session.waiting,
        "attached": hosted.reader is not None,
    }
