"""A session at a node elsewhere that this client uses beside the one that drives it."""

from __future__ import annotations

from typing import Any

from capsule.client.remote.session import RemoteSession


class SharedSession(RemoteSession):
    """What it runs is its own; what concerns the code of others the node refuses. To close it is to leave it."""

    async def close(self) -> None:
        """Leave the session, which goes on, as does what this client has it run. Idempotent."""
        await self.leave("shares")

    # --- for the link ---

    def attaching(self) -> dict[str, Any]:
        """What to say on a new connection."""
        return {"name": self.id, "share": True}
