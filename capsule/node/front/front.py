"""The front: the sockets that clients connect to."""

from __future__ import annotations

import asyncio
import logging
import os
from typing import TYPE_CHECKING, Any

import zmq

from capsule.node.front.peer import Peer
from capsule.node.front.registry import Registry
from capsule.node.tasks import Tasks
from capsule.sockets import Drain
from capsule_protocol.errors import NodeError
from capsule_protocol.limits import DEFAULT_LIMITS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from capsule.config import ServeConfig
    from capsule.node.node import Node
    from capsule_protocol.envelope import Frames
    from capsule_protocol.errors import RemoteProtocolError

logger = logging.getLogger("capsule.front")

UNREAD = 10_000
"""Messages that may wait in ZeroMQ for one client; who lets more pile up is dropped, and may come back."""
WAITING = 1000
"""Messages of one client that ZeroMQ takes before the node does; then the client waits."""
GOODBYE = 200
"""Milliseconds that the last words to clients may take."""
USER = "user"
"""The owner of all that comes over `ipc://`: the user whose node it is."""


class Front:
    """Serves clients on any number of addresses, until `close`."""

    def __init__(self, node: Node, config: ServeConfig) -> None:
        self.node = node
        self.config = config
        self.tasks = Tasks()
        self.registry = Registry(node, self.tasks)
        self.draining = False
        self.on_drain: Callable[[], None] | None = None
        self.addresses: list[str] = []
        self.offences = 0
        self._loop = asyncio.get_running_loop()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._doors: list[Drain] = []
        self._peers: dict[bytes, tuple[Peer, Drain]] = {}
        self._clients: dict[str, Peer] = {}
        self._sweeper: asyncio.TimerHandle | None = None

    @property
    def clients(self) -> int:
        """How many connections there are."""
        return len(self._peers)

    def listen(self, address: str) -> None:
        """Take clients at an `ipc://` address; only processes of this user get in. Raises NodeError."""
        socket = self._context.socket(zmq.ROUTER)
        try:
            socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
            socket.setsockopt(zmq.SNDHWM, UNREAD)
            socket.setsockopt(zmq.RCVHWM, WAITING)
            socket.setsockopt(zmq.MAXMSGSIZE, DEFAULT_LIMITS.message_bytes)
            socket.setsockopt(zmq.IPC_FILTER_UID, os.getuid())
            socket.bind(address)
        except zmq.ZMQError as error:
            socket.close(0)
            raise NodeError("address_refused", f"cannot listen at {address}: {error.strerror}") from error
        door = Drain(socket, self._loop, lambda frames: self._take(door, frames))
        self._doors.append(door)
        self.addresses.append(address)
        door.start()
        if self._sweeper is None:
            self._sweep()

    async def close(self) -> None:
        """Hang up, end every session, and close the sockets. The node stays its owner's."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        await self.registry.close_all()
        await self.tasks.close()
        for peer, _ in list(self._peers.values()):
            peer.say_goodbye()
            self.drop(peer)
        for door in self._doors:
            door.close(GOODBYE)
        self._context.term()

    async def settled(self) -> None:
        """Wait until no execution runs or waits."""
        for hosted in self.registry:
            for log in list(hosted.logs.values()):
                await log.execution.ended()

    # --- for the peers ---

    def drain(self) -> None:
        """Take nothing new, and have the service end as SIGTERM does. Idempotent."""
        self.draining = True
        if self.on_drain is not None:
            self.on_drain()

    def send(self, peer: Peer, frames: Frames) -> None:
        """Send to a client; one that is gone, or lets too much pile up, is dropped."""
        known = self._peers.get(peer.identity)
        if known is None:
            return
        try:
            known[1].send([peer.identity, *frames])
        except zmq.ZMQError as error:  # Again: too much waits; EHOSTUNREACH: it is gone
            logger.info("%r takes nothing any more: %s", peer, error.strerror)
            self.drop(peer)

    def greeted(self, peer: Peer) -> None:
        """A client has greeted; what it left of an earlier connection is over."""
        earlier = self._clients.get(peer.client)
        if earlier is not None and peer.client:
            self.drop(earlier)
        self._clients[peer.client] = peer

    def drop(self, peer: Peer) -> None:
        """Forget a connection. Idempotent."""
        if self._peers.pop(peer.identity, None) is not None:
            if self._clients.get(peer.client) is peer:
                del self._clients[peer.client]
            peer.lose()

    def offended(self, peer: Peer, error: RemoteProtocolError) -> None:
        """A client sent what cannot be read, or was not due."""
        self.offences += 1
        # Who has not greeted may be a connection that was forgotten, whose last words come late.
        logger.log(logging.WARNING if peer.client else logging.INFO, "%r broke the protocol: %s", peer, error)

    # --- inside ---

    def _take(self, door: Drain, frames: list[Any]) -> bool:
        identity, *rest = frames
        peer, _ = self._peers.get(identity) or self._meet(identity, door)
        peer.seen = self._loop.time()
        try:
            peer.take(rest)
        except Exception:  # a mistake of ours must cost nobody else's connection
            logger.exception("a message of %r could not be handled", peer)
            self.drop(peer)
        return True

    def _meet(self, identity: bytes, door: Drain) -> tuple[Peer, Drain]:
        refusal = None
        if len(self._peers) >= self.config.max_clients:
            message = f"the node has max_clients={self.config.max_clients} connections already"
            refusal = NodeError("too_many_clients", message)
        pair = self._peers[identity] = Peer(self, identity, USER, DEFAULT_LIMITS, refusal), door
        return pair

    def _sweep(self) -> None:
        """Drop the connections that have been silent for too long: a client that lives sends heartbeats."""
        limit = self.config.client_timeout
        oldest = self._loop.time() - limit
        for peer in self._silent_since(oldest):
            self.drop(peer)
        self._sweeper = self._loop.call_later(limit / 4, self._sweep)

    def _silent_since(self, time: float) -> Iterable[Peer]:
        return [peer for peer, _ in self._peers.values() if peer.seen < time]
