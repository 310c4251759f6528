"""What clients ask for to save a session and to restore it: of their own sessions, whoever reads them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from capsule.node.checkpoints import LoadRequest, SaveRequest
from capsule_protocol.errors import SessionError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from capsule.node.checkpoints import SessionCheckpoints
    from capsule.node.front.desk import Desk
    from capsule.node.front.hosted import Hosted
    from capsule.node.front.requests import Caller
    from capsule_protocol.envelope import Envelope


class Checkpoints:
    """Those of one connection. What runs meanwhile is neither seen nor disturbed: a checkpoint waits for its turn."""

    def __init__(self, desk: Desk, caller: Caller) -> None:
        self._desk = desk
        self._caller = caller
        self._promised: list[tuple[SessionCheckpoints, str]] = []
        self._fewer = asyncio.Event()
        self.kinds: dict[str, Callable[[Any, Envelope], Coroutine[Any, Any, None]]] = {
            "save": self._save,
            "load": self._load,
            "discard": self._discard,
        }

    async def fetched(self) -> None:
        """Wait until the client has all that was made for it: it says so with `discard`, or leaves."""
        while not self._caller.gone and self._unfetched():
            self._fewer.clear()
            await self._fewer.wait()

    def lose(self) -> None:
        """The connection is over."""
        self._fewer.set()

    def _unfetched(self) -> list[tuple[SessionCheckpoints, str]]:
        return [(checkpoints, file) for checkpoints, file in self._promised if checkpoints.holds(file)]

    async def _save(self, message: Any, envelope: Envelope) -> None:
        hosted = await self._ready(envelope.session)
        request = SaveRequest(message.file, hosted.owner, message.names, message.timeout)
        checkpoints = hosted.session.checkpoints
        report = await checkpoints.save(request)
        self._promised = [*self._unfetched(), (checkpoints, message.file)]
        self._caller.answer("save_reply", {"report": report.model_dump()}, envelope)

    async def _load(self, message: Any, envelope: Envelope) -> None:
        hosted = await self._ready(envelope.session)
        request = LoadRequest(
            message.file, hosted.owner, message.names, message.timeout, message.allow_other_interpreter
        )
        hosted.session.powers.submitted(self._caller.owner)  # values bring their code with them
        reply = await hosted.session.checkpoints.load(request)
        self._caller.answer("load_reply", reply.model_dump(), envelope)

    async def _discard(self, message: Any, envelope: Envelope) -> None:
        session = self._caller.own(envelope.session).session
        try:
            await session.checkpoints.discard(message.file)
        finally:
            self._fewer.set()
        self._caller.answer("status", {"state": session.state}, envelope)

    async def _ready(self, name: str) -> Hosted:
        """A session that may be saved or restored, behind all that was asked of it. Raises SessionError."""
        if self._desk.draining:
            raise SessionError("node_closed", "the node saves and restores no more sessions: it is about to end")
        hosted = self._caller.own(name)
        self._desk.gate.check_execute(hosted.owner, hosted)
        await hosted.lined_up()
        return hosted
