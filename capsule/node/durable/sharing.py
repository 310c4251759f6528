"""Nodes that share a store: which of them a session belongs to, which of them live, and who inherits of the dead.

The log of a session's promise says whose it is: one entry for each epoch, with the node that has it, and the last one
counts. Entries are numbered without a gap, so of nodes that want the same epoch one gets it, and no epoch is two's.
A node lives as long as it renews its lease, by the store's clock. Who inherits holds the dead one's lease meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Protocol

from msgpack import packb, unpackb

from capsule.node.durable.patience import LAST_RETRY, until_committed
from capsule_bridge import session_promise
from capsule_protocol.errors import CapsuleError, LocalProtocolError, SessionError

if TYPE_CHECKING:
    from capsule.node.tasks import Tasks
    from capsule_bridge import Bridge, Fence, Lease, Leases, Promise

logger = logging.getLogger("capsule.bridge")

PREFIX = "node:"
"""Of the names of leases of nodes."""
TURNS = 3
"""How often a lease is renewed within its time, at least."""


def entry(node: str) -> bytes:
    """What the log of a session says of an epoch."""
    packed: bytes = packb({"node": node})
    return packed


async def owner_of(bridge: Bridge, session: str) -> tuple[str, int]:
    """The node that a session belongs to, and its newest epoch; nobody's if the session is forgotten."""
    owner, epoch = "", 0
    try:
        async for number, data in bridge.events(session_promise(session), 0):
            owner, epoch = str(unpackb(data)["node"]), number
    except SessionError:  # it is not known, or not any more
        return "", 0
    return owner, epoch


async def claim(bridge: Bridge, promise: Promise, node: str, epoch: int) -> Fence | None:
    """Have this epoch, the next one, of a session of a dead node; None: another node has it."""
    try:
        await bridge.append(promise.id, (entry(node),), epoch - 1, promise.fence)
        return await bridge.take(promise.id, epoch)
    except (SessionError, LocalProtocolError) as error:
        logger.warning("session %s goes to another node: %s", promise.session, error)
        return None


async def find_elsewhere(bridge: Bridge, me: str, owner: str | None, name: str) -> str | None:
    """The other node that has a session of this name, or with this id; of this owner, or of anybody.

    It looks at all that is pending, since stores know no names: for what is asked now and then, and is not here.
    """
    async for promise in bridge.pending():
        named = promise.kind == "session" and name in {promise.session, unpackb(promise.param)["name"]}
        if named and owner in {None, promise.principal}:
            node, _ = await owner_of(bridge, promise.session)
            if node != me:
                return node
    return None


class House(Protocol):
    """What a node does about its sessions, and those of the dead."""

    async def others(self) -> set[str]:
        """All nodes that sessions of the store belong to."""

    async def inherit(self, node: str) -> None:
        """Take over what belongs to a node that is dead."""

    async def let_go(self) -> None:
        """This node was taken for dead: what it had is not its own any more."""


class Share:
    """A node's part in a store: its lease, and those of the nodes that it inherits of.

    A lease lasts for `lease` and `linger` seconds. A node judges others only when it has had its own for `lease`
    seconds without a break: after the store was away they may not have come to renew theirs.
    """

    def __init__(self, leases: Leases, name: str, lease: float, linger: float, tasks: Tasks) -> None:
        self.name = name
        self._leases = leases
        self._lease = lease
        self._seconds = lease + linger
        self._tasks = tasks
        self._loop = asyncio.get_running_loop()
        self._held: dict[str, Lease] = {}
        self._since: float | None = None
        self._until = 0.0  # by this node's clock, and never later than by the store's
        self._died = False  # and has not begun again
        self._looked = False
        self._heir: asyncio.Task[None] | None = None

    @property
    def lives(self) -> bool:
        """Whether nobody can have taken this node for dead: its lease lasts, since it was renewed last."""
        return self._loop.time() < self._until

    async def join(self) -> None:
        """Be one of the living. Who takes over what this node had in an earlier life is let finish."""
        while not await until_committed(f"node {self.name}", lambda: self._acquire(self.name)):
            logger.warning("another node takes over what was this node's; it begins when that is done")
            await asyncio.sleep(LAST_RETRY)
        self._since = self._loop.time()

    async def keep(self, house: House) -> None:
        """For ever: stay alive, and see to those that did not."""
        while True:
            await asyncio.sleep(self._lease / TURNS)
            try:
                await self._turn(house)
            except CapsuleError as error:
                self._since = None
                logger.warning("the lease of node %s cannot be renewed: %s", self.name, error)
            except Exception:  # a mistake of the store's: the next turn is another one
                self._since = None
                logger.exception("the lease of node %s cannot be renewed", self.name)

    async def _turn(self, house: House) -> None:
        for node, lease in list(self._held.items()):
            asked = self._loop.time()
            kept = await self._leases.renew(lease, seconds=self._seconds)
            if not kept and self._held.get(node) is lease:  # else we have just released it
                await self._die(house)
                return
            self._lasts(node, asked)
        if self._died:  # and what was to be done then has failed on the way
            await self._begin_again(house)
        now = self._loop.time()
        self._since = now if self._since is None else self._since
        if now - self._since >= self._lease and (self._heir is None or self._heir.done()):
            self._heir = self._tasks.start(self._look(house))

    async def _die(self, house: House) -> None:
        """Whoever took us for dead goes on with all that was ours; we begin again as a new node would.

        Or another one was faster where we inherit: then we were too slow for that, and let go of all, too.
        """
        logger.error("node %s was silent for too long, and another one has taken over what it had", self.name)
        self._died = True
        self._until = 0.0
        self._held.clear()
        if self._heir is not None:
            self._heir.cancel()
        await house.let_go()
        await self._begin_again(house)

    async def _begin_again(self, house: House) -> None:
        if self.name not in self._held:
            await self.join()
        await house.inherit(self.name)  # of what is left if the other one has died meanwhile
        self._died = False

    async def _look(self, house: House) -> None:
        """Inherit of the dead. The first time all are looked at: leases that are over for long are forgotten."""
        try:
            lapsed = {name.removeprefix(PREFIX) for name in await self._leases.lapsed(PREFIX)}
            names = lapsed if self._looked else lapsed | await house.others()
            for node in sorted(names - {self.name}):
                if await self._acquire(node):
                    logger.warning("node %s is dead: this one takes over what it had", node)
                    try:
                        await house.inherit(node)
                    finally:  # if that failed the lease lapses, and somebody tries again
                        lease = self._held.pop(node, None)  # None: this node was taken for dead meanwhile
                    if lease is not None:
                        await self._leases.release(lease)
            self._looked = True
        except CapsuleError as error:
            logger.warning("dead nodes are looked for later: %s", error)
        except Exception:
            logger.exception("dead nodes are looked for later")

    async def _acquire(self, node: str) -> bool:
        asked = self._loop.time()
        lease = await self._leases.acquire(PREFIX + node, self.name, seconds=self._seconds)
        if lease is not None:
            self._held[node] = lease
            self._lasts(node, asked)
        return lease is not None

    def _lasts(self, node: str, asked: float) -> None:
        """A lease was renewed by what was asked for then."""
        if node == self.name:
            self._until = asked + self._seconds
