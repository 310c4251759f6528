"""Whether the configuration is one, and its environments can be started."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from capsule.config import NodeConfig
from capsule.doctor.finding import Finding
from capsule.settings.loading import Loaded, read
from capsule_protocol.errors import ArgumentError, CapsuleError

if TYPE_CHECKING:
    import os

LOOPBACK = frozenset({"localhost", "[::1]"})
"""Hosts that only this machine reaches, beside 127.0.0.0/8."""


def examine(path: str | os.PathLike[str] | None) -> tuple[NodeConfig, list[Finding]]:
    """The configuration, or the default one where it cannot be had; and what is to be said of it."""
    try:
        loaded = read(path)
    except ArgumentError as error:
        hint = error.hint or "Correct the file; the other checks took the defaults."
        return NodeConfig(), [Finding("configuration", "error", error.message, hint), *_checks(NodeConfig())]
    return loaded.config, [_loaded(loaded), *_checks(loaded.config)]


def _checks(config: NodeConfig) -> list[Finding]:
    return [_interpreters(config), _policy(config), http_address(config.serve.http)]


def _loaded(loaded: Loaded) -> Finding:
    if loaded.file is None:
        return Finding(
            "configuration", "info", "there is no capsule.toml: the defaults are used, and CAPSULE_ variables"
        )
    return Finding(
        "configuration", "ok", f"{loaded.file}: environments {', '.join(sorted(loaded.config.environments))}"
    )


def _interpreters(config: NodeConfig) -> Finding:
    """Found and executable; whether Capsule is installed for them shows when they are first used."""
    missing = []
    for name, environment in config.environments.items():
        python = environment.python or sys.executable
        if shutil.which(Path(python).expanduser()) is None:
            missing.append(f"{name}: {python}")
    if missing:
        message = f"there is no such program: {', '.join(missing)}"
        return Finding("interpreters", "error", message, "Correct `python` of the environment.")
    return Finding("interpreters", "ok", f"{len(config.environments)} found")


def _policy(config: NodeConfig) -> Finding:
    """As the node looks at it when it starts, but for what only providers that run can tell."""
    from capsule.broker.policy import check_sandbox, load
    from capsule.broker.registry import load as providers

    file = config.broker.policy
    if file is None:
        return Finding("policy", "info", "there is none, so no code can call anything")
    try:
        found = load(file, providers(config.broker.providers).descriptors())
        for name, environment in config.environments.items():
            check_sandbox(found, name, environment)
    except CapsuleError as error:
        hint = "`capsule policy check` tells all that is wrong with it." if "complaints" in error.details else ""
        return Finding("policy", "error", error.message, hint)
    return Finding("policy", "ok", f"{file}: {len(found.rules)} grants, {len(found.denials)} denials")


def http_address(address: str | None) -> Finding:
    """Who can read the metrics."""
    if address is None:
        return Finding("http_address", "ok", "no metrics are served")
    if address.rpartition(":")[0] in LOOPBACK or address.startswith("127."):
        return Finding("http_address", "ok", f"metrics at {address}")
    message = f"whoever reaches {address} can read the metrics; nobody is asked who he is"
    return Finding("http_address", "warning", message, "Set `http` to 127.0.0.1:PORT, or let only Prometheus reach it.")
