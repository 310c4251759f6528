"""To which event loop a client belongs."""

from __future__ import annotations

import asyncio

from capsule_protocol.errors import SessionError


def check_loop(owner: asyncio.AbstractEventLoop | None, what: str) -> None:
    """Raise SessionError on any other event loop: only its own one watches its sockets and processes."""
    if owner is None or owner is _running():
        return
    message = f"{what} belongs to another event loop, the one that opened its first session"
    raise SessionError("unsupported", message, hint="Use one client for each event loop, or capsule.Client.")


def _running() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
