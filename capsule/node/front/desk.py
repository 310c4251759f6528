"""What connections, and the requests that come over them, need of the front."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from capsule.node.auth.gate import Gate
    from capsule.node.durable import Ledger
    from capsule.node.front.peer import Peer
    from capsule.node.front.registry import Registry
    from capsule.node.node import Node
    from capsule.node.tasks import Tasks
    from capsule.settings.service import ServeConfig
    from capsule_protocol.envelope import Frames
    from capsule_protocol.errors import RemoteProtocolError


class Office(Protocol):
    """What the requests need."""

    node: Node
    config: ServeConfig
    registry: Registry
    tasks: Tasks
    ledger: Ledger | None
    draining: bool
    offences: int

    @property
    def clients(self) -> int:
        """How many connections there are."""

    def drain(self) -> None:
        """End the node as SIGTERM does. Idempotent."""


class Desk(Office, Protocol):
    """What a connection needs besides."""

    gate: Gate

    def send(self, peer: Peer, frames: Frames, *, bulk: bool = False) -> None:
        """Send to the other end; one that takes nothing any more is dropped."""

    def greeted(self, peer: Peer) -> None:
        """It said which client it is: an older connection of the same one is no more."""

    def drop(self, peer: Peer) -> None:
        """Forget it."""

    def offended(self, peer: Peer, error: RemoteProtocolError) -> None:
        """It sent what cannot be read, or was not due."""
