"""Where Capsule runs. Elsewhere it says so at once, instead of failing somewhere on the way."""

from __future__ import annotations

import platform

from capsule_protocol.errors import NodeError

IN_LINUX = "Run it in a container or a virtual machine with Linux (on Windows: WSL)"


def check_node() -> None:
    """Raise NodeError, `unsupported`, where no node can run: it needs pidfds, /proc and eventfds, which Linux has."""
    system = platform.system()
    if system != "Linux":
        hint = f'{IN_LINUX}, and connect to it: capsule.Client("tcp://…", key=…).'
        raise NodeError("unsupported", f"a node runs on Linux only, and this is {system or 'unknown'}", hint=hint)


def check_client() -> None:
    """Raise NodeError, `unsupported`, where no client can run either: it needs what POSIX systems have."""
    if platform.system() == "Windows":
        message = "Capsule runs on Linux (its clients perhaps on other POSIX systems), and this is Windows"
        raise NodeError("unsupported", message, hint=f"{IN_LINUX}.")
