"""What a node does with what is in its store: its own at the start, and that of other nodes when they are dead."""

from __future__ import annotations

from typing import TYPE_CHECKING

from capsule.node.durable.recovery import Recovery
from capsule.node.durable.sharing import owner_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from capsule.node.adoption import Adoptable
    from capsule.node.durable.ledger import Ledger
    from capsule.node.front.registry import Registry
    from capsule.node.node import Node
    from capsule.settings.service import ServeConfig


class Household:
    """A `House`."""

    def __init__(self, ledger: Ledger, registry: Registry, node: Node, config: Callable[[], ServeConfig]) -> None:
        self._ledger = ledger
        self._registry = registry
        self._node = node
        self._config = config

    async def begin(self, boxes: Sequence[Adoptable]) -> None:
        """Go on with what this node had in an earlier life."""
        await self._recover(self._ledger.name or None, boxes)

    async def others(self) -> set[str]:
        """As `House.others`."""
        bridge = self._ledger.bridge
        sessions = {promise.session async for promise in bridge.pending() if promise.kind in {"session", "execute"}}
        owners = {(await owner_of(bridge, session))[0] for session in sessions - self._registry.ids}
        return owners - {""}

    async def inherit(self, node: str) -> None:
        """As `House.inherit`."""
        await self._recover(node, ())

    async def let_go(self) -> None:
        """As `House.let_go`."""
        await self._registry.let_go()

    async def _recover(self, of: str | None, boxes: Sequence[Adoptable]) -> None:
        config = self._config()
        ttl, patience = config.detached_ttl, config.reconnect_timeout
        await Recovery(self._ledger, self._registry, self._node, ttl, patience, of).run(boxes)
