"""The service manager: it is told what the service does, if it has asked to be told (sd_notify)."""

from __future__ import annotations

import contextlib
import os
import socket


def notify(state: str) -> None:
    """Tell it. One that is gone needs to know nothing."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to, contextlib.suppress(OSError):
        to.sendto(state.encode(), "\0" + address[1:] if address.startswith("@") else address)
