"""What a node does with what an earlier one left in its store, before it takes its first client."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from capsule.node.durable.ledger import Entry
from capsule.node.durable.records import unpack_options, unpack_request
from capsule_protocol.errors import CapsuleError, WorkerLost

if TYPE_CHECKING:
    from capsule.node.durable.ledger import Ledger
    from capsule.node.front.hosted import Hosted
    from capsule.node.front.registry import Registry
    from capsule.node.node import Node
    from capsule_bridge import Promise

logger = logging.getLogger("capsule.bridge")

AT_ONCE = 256
"""Verdicts that are written down side by side."""


async def recover(ledger: Ledger, registry: Registry, node: Node, lifetime: float | None) -> None:
    """Find the sessions again; rule on what had been started; have the rest run, in its order.

    A session that nobody wants within `lifetime` seconds is closed. Raises StoreError.
    """
    sessions: dict[str, Hosted] = {}
    started: list[Promise] = []
    waiting: dict[str, list[Promise]] = {}
    async for promise in ledger.bridge.pending():
        ledger.bridge.stats.took_over(promise)
        if promise.kind == "session":
            sessions[promise.session] = _find_again(promise, registry, node, lifetime)
        elif promise.kind == "execute" and promise.started_at is None:
            waiting.setdefault(promise.session, []).append(promise)
        elif promise.kind == "execute":
            started.append(promise)
    for at in range(0, len(started), AT_ONCE):
        await asyncio.gather(*(_rule(ledger, promise) for promise in started[at : at + AT_ONCE]))
    for session, promises in waiting.items():
        registry.tasks.start(_run(ledger, registry, sessions.get(session), promises))
    if sessions or started:
        logger.warning(
            "found %d sessions of an earlier node; %d executions are lost, and %d wait to be run",
            len(sessions),
            len(started),
            sum(map(len, waiting.values())),
        )


def _find_again(promise: Promise, registry: Registry, node: Node, lifetime: float | None) -> Hosted:
    session = node.find_again(unpack_options(promise.param), promise.session, promise.epoch)
    hosted = registry.find_again(session, promise.principal)
    hosted.asleep = True
    hosted.detach(lifetime)
    return hosted


async def _rule(ledger: Ledger, promise: Promise) -> None:
    """It had been started, so it is not run again, and nobody knows how far it came."""
    error = WorkerLost("worker_lost", "the node ended while the code ran, and its worker with it")
    await ledger.give_up(promise, error, started=True)


async def _run(ledger: Ledger, registry: Registry, hosted: Hosted | None, promises: list[Promise]) -> None:
    """They had been accepted and not begun."""
    try:
        if hosted is None:
            raise WorkerLost("worker_lost", "the session had been closed")
        await registry.wake(hosted)
    except CapsuleError as error:
        for promise in promises:
            await ledger.give_up(promise, error, started=False)
        return
    for promise in promises:
        await hosted.line_up(ledger, Entry(promise, fresh=True, begun=False), unpack_request(promise.param))
