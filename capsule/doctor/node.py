"""Whether a node can be reached."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from capsule.client.credentials import check_credentials
from capsule.client.remote.node import RemoteNode
from capsule.doctor.finding import Finding
from capsule.node.durable.clocks import APART, apart
from capsule.runtime import check_address, node_address
from capsule_protocol.errors import ArgumentError, CapsuleError, NodeError

if TYPE_CHECKING:
    from capsule.config import NodeConfig

PATIENCE = 10.0
"""Seconds that a node may take to answer."""


async def examine(address: str | None, config: NodeConfig) -> Finding:
    """`address` None: the node of this configuration, which need not run."""
    try:
        at = node_address(config) if address is None else check_address(address)
        credentials = check_credentials(at, None, None)
    except (ArgumentError, NodeError) as error:
        return Finding("node", "error", error.message, error.hint)
    node = RemoteNode(at, credentials)
    try:
        async with asyncio.timeout(PATIENCE):
            info = await node.info()
    except TimeoutError:
        return Finding("node", "error", f"the node at {at} did not answer within {PATIENCE:g} s", "Look at its log.")
    except CapsuleError as error:
        needed = address is not None or error.code != "node_unreachable"
        return Finding("node", "error" if needed else "info", error.message, error.hint)
    finally:
        await node.close()
    if info.bridge is not None and info.bridge.failing:
        message = f"the node at {at} answers, and its store cannot commit: {info.bridge.failing}"
        return Finding("node", "error", message, "Correct that; the node goes on by itself.")
    if info.bridge is not None and abs(info.bridge.clock_ahead) >= APART:
        hint = "Start the node again when that does no harm: then it has the machine's clock."
        return Finding("node", "warning", f"the node at {at} answers; {apart(info.bridge.clock_ahead)}", hint)
    pools = [f"the breaker of {name} is {one.breaker.state}" for name, one in info.pools.items() if one.breaker.cause]
    if pools:
        return Finding("node", "warning", f"the node at {at} answers; {', '.join(pools)}", "See `capsule pool`.")
    return Finding("node", "ok", f"the node at {at} answers; it has {info.sessions} sessions")
