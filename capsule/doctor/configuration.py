"""Whether the configuration is one, and its environments can be started."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from capsule.config import NodeConfig, load
from capsule.doctor.finding import Finding
from capsule.settings.sources import chosen_file
from capsule_protocol.errors import ArgumentError

if TYPE_CHECKING:
    import os


def examine(path: str | os.PathLike[str] | None) -> tuple[NodeConfig, list[Finding]]:
    """The configuration, or the default one where it cannot be had; and what is to be said of it."""
    try:
        config = load(path)
    except ArgumentError as error:
        hint = error.hint or "Correct the file; the other checks took the defaults."
        return NodeConfig(), [Finding("configuration", "error", error.message, hint), _interpreters(NodeConfig())]
    return config, [_loaded(path, config), _interpreters(config)]


def _loaded(path: str | os.PathLike[str] | None, config: NodeConfig) -> Finding:
    file = chosen_file(path)
    if file is None:
        return Finding("configuration", "info", "there is no capsule.toml here: the defaults are used")
    return Finding("configuration", "ok", f"{file}: environments {', '.join(sorted(config.environments))}")


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
