"""The front: the sockets that clients connect to."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from capsule.node.auth.gate import Gate
from capsule.node.durable import Ledger
from capsule.node.front import tcp
from capsule.node.front.peer import Peer
from capsule.node.front.registry import Registry
from capsule.node.front.unix import SCHEME, UnixListener
from capsule.node.tasks import Tasks
from capsule.stream import PeerBusyError
from capsule.text import one_line
from capsule_protocol.errors import NodeError
from capsule_protocol.limits import DEFAULT_LIMITS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from capsule.node.auth.principals import Principal
    from capsule.node.front.carrier import Carrier, Listener
    from capsule.node.front.hosted import Hosted
    from capsule.node.node import Node
    from capsule.settings.service import ServeConfig
    from capsule_bridge import Bridge
    from capsule_protocol.envelope import Frames
    from capsule_protocol.errors import RemoteProtocolError

logger = logging.getLogger("capsule.front")


class Front:
    """Serves clients on any number of addresses, until `close`."""

    def __init__(self, node: Node, config: ServeConfig, bridge: Bridge | None = None, name: str = "") -> None:
        self.node = node
        self.config = config
        self.tasks = Tasks()
        self._loop = asyncio.get_running_loop()
        self.gate = Gate(self, self._loop)
        self.ledger = Ledger(bridge, self.tasks, name) if bridge is not None else None
        self.registry = Registry(node, self.tasks, self.gate, self.ledger)
        self.draining = False
        self.on_drain: Callable[[], None] | None = None
        self.addresses: list[str] = []
        self.http = ""
        self.offences = 0
        self.received_bytes = self.sent_bytes = 0
        self._listeners: list[Listener] = []
        self._peers: dict[Peer, Carrier] = {}
        self._clients: dict[tuple[str, str], Peer] = {}
        self._deadlines: dict[Peer, asyncio.TimerHandle] = {}
        self._sweeper: asyncio.TimerHandle | None = None

    @property
    def clients(self) -> int:
        """How many connections there are."""
        return len(self._peers)

    def listen(self, address: str) -> None:
        """Take clients at an `ipc://` address, from this machine, or at a `tcp://` address. Raises NodeError."""
        if address.startswith(tcp.SCHEME):
            listener = tcp.TcpListener(self, address, self._loop)
            address = listener.address
            self._listeners.append(listener)
        elif address.startswith(SCHEME):
            self._listeners.append(UnixListener(self, address, self._loop))
        else:
            known = f"{SCHEME} or {tcp.SCHEME}"
            raise NodeError("address_refused", f"cannot listen at {address}: an address begins with {known}")
        self.addresses.append(address)
        if self._sweeper is None:
            self._sweep()

    async def close(self) -> None:
        """Hang up, end every session, and close the sockets. The node stays its owner's."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        for listener in self._listeners:
            listener.close()
        await self.registry.close_all()
        await self.tasks.close()
        await self.registry.ended()
        for peer in list(self._peers):
            peer.say_goodbye()
            self.drop(peer)
        self.gate.close()

    async def settled(self) -> None:
        """Wait until nothing runs or waits, no checkpoint or file is on its way, and clients have what was said."""
        await self.executed()
        for hosted in self.registry:
            await hosted.session.saved()
        for peer in list(self._peers):
            await peer.settled()
        for carrier in list(self._peers.values()):
            await carrier.flushed()

    async def executed(self) -> None:
        """Wait until no execution runs or waits, and all verdicts were told."""
        for hosted in self.registry:
            await hosted.settled()

    # --- for the peers ---

    def drain(self) -> None:
        """Take nothing new, and have the service end as SIGTERM does. Idempotent."""
        self.draining = True
        if self.on_drain is not None:
            self.on_drain()

    def send(self, peer: Peer, frames: Frames, *, bulk: bool = False) -> None:
        """Send to a client; one that is gone, or lets too much pile up, is dropped."""
        carrier = self._peers.get(peer)
        if carrier is None:
            return
        self.sent_bytes += sum(map(len, frames))
        try:
            carrier.send(frames, bulk=bulk)
        except PeerBusyError:
            logger.info("%r reads too slowly: it is dropped, and may come back", peer)
            self.drop(peer)

    def greeted(self, peer: Peer) -> None:
        """A client has greeted; what it left of an earlier connection is over."""
        self._no_deadline(peer)
        who = peer.owner, peer.client
        earlier = self._clients.get(who)
        if earlier is not None and peer.client:
            self.drop(earlier)
        self._clients[who] = peer

    def drop(self, peer: Peer) -> None:
        """Forget a connection. Idempotent."""
        carrier = self._peers.pop(peer, None)
        if carrier is not None:
            carrier.close()
            self._no_deadline(peer)
            if self._clients.get((peer.owner, peer.client)) is peer:
                del self._clients[peer.owner, peer.client]
            peer.lose()

    def offended(self, peer: Peer, error: RemoteProtocolError) -> None:
        """A client sent what cannot be read, or was not due."""
        self.offences += 1
        logger.warning("%r broke the protocol: %s", peer, one_line(error))

    # --- for the gate ---

    def owned(self, owner: str) -> Iterable[Hosted]:
        """The sessions of a principal."""
        return (hosted for hosted in self.registry if hosted.owner == owner)

    def recheck(self) -> None:
        """Drop the connections whose key is not valid any more."""
        for peer in list(self._peers):
            if not self.gate.valid(peer.principal):
                peer.deny(NodeError("access_denied", "the key, or the token, was revoked or has expired"))

    # --- for the listeners ---

    def meet(self, principal: Principal, carrier: Carrier) -> Peer:
        """A connection has been made; one too many is refused when it greets."""
        refusal = None
        if len(self._peers) >= self.config.max_clients:
            message = f"the node has max_clients={self.config.max_clients} connections already"
            refusal = NodeError("too_many_clients", message)
        peer = Peer(self, principal, DEFAULT_LIMITS, refusal)
        peer.seen = self._loop.time()
        self._peers[peer] = carrier
        self._deadlines[peer] = self._loop.call_later(self.config.greeting_timeout, self._hang_up, peer)
        return peer

    def take(self, peer: Peer, frames: list[bytes]) -> None:
        """A message came."""
        peer.seen = self._loop.time()
        self.received_bytes += sum(map(len, frames))
        try:
            peer.take(frames)
        except Exception:  # a mistake of ours must cost nobody else's connection
            logger.exception("a message of %r could not be handled", peer)
            self.drop(peer)

    def broken(self, peer: Peer, error: RemoteProtocolError) -> None:
        """Something came that is no message."""
        peer.offend(error)

    # --- inside ---

    def _hang_up(self, peer: Peer) -> None:
        """It has had the time to greet; its place is for others."""
        logger.info("%r has not greeted in time: it is dropped", peer)
        self.drop(peer)

    def _no_deadline(self, peer: Peer) -> None:
        deadline = self._deadlines.pop(peer, None)
        if deadline is not None:
            deadline.cancel()

    def _sweep(self) -> None:
        """Drop the connections that have been silent for too long: a client that lives sends heartbeats."""
        limit = self.config.client_timeout
        oldest = self._loop.time() - limit
        for peer in self._silent_since(oldest):
            self.drop(peer)
        self._sweeper = self._loop.call_later(limit / 4, self._sweep)

    def _silent_since(self, time: float) -> Iterable[Peer]:
        return [peer for peer in self._peers if peer.seen < time]
