"""What operators ask for: which sessions there are, to interrupt or end one of them, and to end the node."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from capsule_protocol.errors import SessionError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from capsule.node.durable import Ledger
    from capsule.node.front.desk import Office
    from capsule.node.front.hosted import Hosted
    from capsule.node.front.requests import Caller
    from capsule_bridge import Promise
    from capsule_protocol.envelope import Envelope

LONGEST_WAIT = 20.0
"""Seconds for which an answer is kept back until there is something to tell."""
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
            "read_log": self._read_log,
            "cancel_execution": self._cancel,
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
        done = await (await self._find(message.name)).interrupt()
        self._caller.answer("info_reply", {"info": {"done": done}}, envelope)

    async def _kill(self, message: Any, envelope: Envelope) -> None:
        hosted = await self._find(message.name)
        await self._desk.registry.kill(hosted)
        self._caller.answer("info_reply", {"info": {"session": hosted.session.id}}, envelope)

    async def _drain(self, message: Any, envelope: Envelope) -> None:
        self._desk.drain()
        if not message.wait:  # whoever waits is answered by the end
            executions = sum(hosted.under_way for hosted in self._desk.registry)
            self._caller.answer("info_reply", {"info": {"draining": True, "executions": executions}}, envelope)

    async def _read_log(self, message: Any, envelope: Envelope) -> None:
        ledger = self._ledger()
        promise = await self._promise(ledger, message.execution)
        log, ended = await ledger.part(message.execution, message.after, wait=LONGEST_WAIT if message.wait else 0.0)
        body = {"first": log.first, "count": len(log.events), "ended": ended}
        told = b"".join(event.data for event in log.events)
        self._caller.answer("read_log_reply", body, envelope, promise.session, (told,))

    async def _cancel(self, message: Any, envelope: Envelope) -> None:
        promise = await self._promise(self._ledger(), message.execution)
        done = promise.pending and await (await self._find(promise.session)).cancel(message.execution)
        self._caller.answer("info_reply", {"info": {"done": done}}, envelope)

    async def _promise(self, ledger: Ledger, execution: str) -> Promise:
        """That of an execution, also of one that is about to be written down."""
        for hosted in self._desk.registry:
            await hosted.accepted(execution)
        return await ledger.by_id(execution, self._caller.principal)

    def _ledger(self) -> Ledger:
        ledger = self._desk.ledger
        if ledger is None:
            raise SessionError("unsupported", "this node writes nothing down: its executions have no life of their own")
        return ledger

    async def _find(self, name: str) -> Hosted:
        return await self._desk.registry.seek(self._caller.principal, name)


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
