"""Whether a node can be reached."""

from __future__ import annotations

import asyncio

from capsule.client.credentials import check_credentials
from capsule.client.remote.node import RemoteNode
from capsule.doctor.finding import Finding
from capsule.runtime import check_address
from capsule_protocol.errors import ArgumentError, CapsuleError

PATIENCE = 10.0
"""Seconds that a node may take to answer."""


async def examine(address: str | None) -> Finding:
    """`address` None: this user's node, which need not run."""
    try:
        at = check_address(address or "auto")
        credentials = check_credentials(at, None, None)
    except ArgumentError as error:
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
    pools = [f"the breaker of {name} is {one.breaker.state}" for name, one in info.pools.items() if one.breaker.cause]
    if pools:
        return Finding("node", "warning", f"the node at {at} answers; {', '.join(pools)}", "See `capsule pool`.")
    return Finding("node", "ok", f"the node at {at} answers; it has {info.sessions} sessions")
