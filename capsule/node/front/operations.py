"""What operators ask for: which sessions there are, to interrupt or end one of them, and to end the node."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from capsule.node.front.desk import Office
    from capsule.node.front.hosted import Hosted
    from capsule.node.front.requests import Caller
    from capsule_protocol.envelope import Envelope

AT_ONCE = 64
"""Sessions told of before others have their turn: the memory of each is read from the system."""


class Operations:
    """Those of one connection. The gate has looked at the role; the registry knows the sessions that exist for it."""

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
        rows: list[dict[str, Any]] = []
        for hosted in self._desk.registry:
            if self._caller.principal.sees_all or hosted.owner == self._caller.owner:
                rows.append(_row(hosted))
                if len(rows) % AT_ONCE == 0:
                    await asyncio.sleep(0)
        self._caller.answer("info_reply", {"info": {"sessions": rows}}, envelope)

    async def _interrupt(self, message: Any, envelope: Envelope) -> None:
        done = await self._find(message.name).interrupt()
        self._caller.answer("info_reply", {"info": {"done": done}}, envelope)

    async def _kill(self, message: Any, envelope: Envelope) -> None:
        hosted = self._find(message.name)
        await self._desk.registry.kill(hosted)
        self._caller.answer("info_reply", {"info": {"session": hosted.session.id}}, envelope)

    async def _drain(self, message: Any, envelope: Envelope) -> None:
        self._desk.drain()
        if not message.wait:  # whoever waits is answered by the end
            executions = sum(hosted.under_way for hosted in self._desk.registry)
            self._caller.answer("info_reply", {"info": {"draining": True, "executions": executions}}, envelope)

    def _find(self, name: str) -> Hosted:
        return self._desk.registry.find(self._caller.principal, name)


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
