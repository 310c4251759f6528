"""What carries the messages of one client, whatever kind of socket is behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from capsule_protocol.envelope import Frames


class Carrier(Protocol):
    """One connection, from the node's side."""

    def send(self, frames: Frames, *, bulk: bool = False) -> None:
        """Send soon, without waiting; what is no bulk may overtake what is.

        Raises PeerBusyError when too much waits for the client already.
        """

    async def flushed(self) -> None:
        """Wait until the system has taken all that was to be said, where `close` does not see to that."""

    def close(self) -> None:
        """Say what was to be said, as far as that needs no waiting, and hang up."""


class Listener(Protocol):
    """Takes clients at one address."""

    def close(self) -> None:
        """Take nobody any more; the connections that were made stay."""
