"""A session at a node elsewhere that this client uses beside the one that drives it."""

from __future__ import annotations

import logging
from typing import Any

from capsule.client.remote.session import REQUEST_TIMEOUT, RemoteSession
from capsule_protocol.errors import CapsuleError, SessionError

logger = logging.getLogger("capsule.client")


class SharedSession(RemoteSession):
    """What it runs is its own; what concerns the code of others the node refuses. To close it is to leave it."""

    async def close(self) -> None:
        """Leave the session, which goes on, as does what this client has it run. Idempotent."""
        if self._state == "closed":
            return
        try:
            if self._line.connected:
                await self._line.request("detach", {}, self.id, timeout=REQUEST_TIMEOUT, again=False)
        except CapsuleError as error:
            logger.info("session %s could not be left: %s", self.id, error)  # the connection ends it
        self.end(SessionError("session_closed", f"this client shares the session {self.name!r} no more"))

    # --- for the link ---

    def attaching(self) -> dict[str, Any]:
        """What to say on a new connection."""
        return {"name": self.id, "share": True}
