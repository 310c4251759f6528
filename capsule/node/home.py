"""What a session is given by its node: who it is, and what it shares with the others."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from capsule.broker.broker import Broker
    from capsule.node.inheritance import Will
    from capsule.node.pools import Pools
    from capsule.node.session import Session
    from capsule.node.tasks import Tasks

LOCAL = "local"
"""The principal of sessions in library mode: the program itself."""


class Identity(NamedTuple):
    """Who a session is: without an id it gets a new one. With a will it outlives its node.

    `lost`: it has lost its worker with an earlier node; it can be restarted. `principal`: whose it is.
    """

    session: str = ""
    epoch: int = 1
    will: Will | None = None
    lost: bool = False
    principal: str = LOCAL


class Home(NamedTuple):
    """What a node has for all its sessions."""

    tasks: Tasks
    pools: Pools
    heartbeat_interval: float
    on_closed: Callable[[Session], None]
    checkpoint_bytes: Callable[[], int]
    broker: Broker | None = None
