"""Checkpoints of a session at a node elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

from capsule.client.remote.streams import RemoteFiles
from capsule_protocol.messages.checkpoints import LoadReply, SaveReport

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from capsule.client.remote.streams import Streams
    from capsule.node.checkpoints import LoadRequest, SaveRequest

TURN_TIMEOUT: Final = 86_400.0 * 366
"""Seconds that it may take until a session has been saved: it waits for its turn, and what runs may run for long."""
REQUEST_TIMEOUT: Final = 60.0
"""Seconds for what waits for nothing."""


class Request(Protocol):
    """A request to the node, for this connection only: what is lost with it may have been done."""

    def __call__(self, kind: str, body: dict[str, Any], timeout: float, /) -> Coroutine[Any, Any, dict[str, Any]]:
        """Send it, and wait for the answer."""


class RemoteCheckpoints:
    """What `capsule.node.checkpoints.SessionCheckpoints` is to the client. The owner is whoever the node knows."""

    def __init__(self, streams: Streams, session: str, request: Request) -> None:
        self.files = RemoteFiles(streams, session, self._begin, "checkpoints")
        self._request = request

    async def save(self, request: SaveRequest) -> SaveReport:
        """Have a checkpoint made, which can be downloaded then."""
        body = {"file": request.file, "names": request.names, "timeout": request.timeout}
        return SaveReport.model_validate((await self._request("save", body, TURN_TIMEOUT))["report"])

    async def load(self, request: LoadRequest) -> LoadReply:
        """Have an uploaded checkpoint restored."""
        body = {
            "file": request.file,
            "names": request.names,
            "timeout": request.timeout,
            "allow_other_interpreter": request.allow_other_interpreter,
        }
        reply = await self._request("load", body, TURN_TIMEOUT)
        return LoadReply.model_validate({name: reply[name] for name in ("report", "created", "left_out")})

    async def discard(self, name: str) -> None:
        """Nobody needs it."""
        await self._request("discard", {"file": name}, REQUEST_TIMEOUT)

    async def _begin(self, kind: str, body: dict[str, Any]) -> dict[str, Any]:
        return await self._request(kind, body, TURN_TIMEOUT)
