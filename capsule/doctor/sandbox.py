"""Which levels of the sandbox can be had: each is entered once, as a worker enters it, by a process of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from capsule.doctor.finding import Finding
from capsule.node.sandboxing import why_not

if TYPE_CHECKING:
    from capsule.config import NodeConfig

LEVELS = ("landlock", "namespaces")


def examine(config: NodeConfig) -> list[Finding]:
    """What is to be said of both levels, with the environments that ask for them."""
    return [_level(level, config) for level in LEVELS]


def _level(level: str, config: NodeConfig) -> Finding:
    asking = {name: one for name, one in config.environments.items() if one.sandbox == level}
    code = f"sandbox_{level}"
    for name, environment in asking.items():
        found = why_not(level, environment)
        if found:
            message = f"environment {name!r} asks for it, and it cannot be had: {found['message']}"
            return Finding(code, "error", message, found["hint"])
    if asking:
        return Finding(code, "ok", f"it can be had, as asked for by {', '.join(sorted(asking))}")
    found = why_not(level)
    if found:
        return Finding(code, "info", f"it cannot be had: {found['message']}", found["hint"])
    return Finding(code, "ok", "it can be had; no environment asks for it")
