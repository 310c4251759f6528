"""Whether the sandbox of an environment can be had: tried in a process of its own, without what it would import."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from capsule_protocol.errors import EnvironmentFailed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from capsule.settings.environments import EnvironmentConfig

_TIMEOUT = 60.0


def sandbox_of(config: EnvironmentConfig) -> dict[str, Any]:
    """What a zygote is told of the sandbox of its workers."""
    readable = [str(path) for path in config.readable]
    return {
        "level": config.sandbox,
        "scratch_bytes": config.scratch_bytes,
        "readable": readable,
        "uid": config.uid,
        "cgroups": config.cgroups,
        "cpus": config.cpus,
    }


def why_not(level: str, environment: EnvironmentConfig | None = None) -> dict[str, str]:
    """Why the level cannot be had, as `message` and `hint`; empty if it can."""
    python = (environment.python if environment else None) or sys.executable
    options: dict[str, Any] = sandbox_of(environment) if environment else {}
    command = [python, "-P", "-m", "capsule_kernels.sandbox.trial", level, json.dumps(options)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_TIMEOUT, check=True)
        answer: dict[str, str] = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        return {"message": f"it could not be tried: {error}", "hint": ""}
    return answer


async def check_sandboxes(environments: Mapping[str, EnvironmentConfig]) -> None:
    """Raise EnvironmentFailed `sandbox_unavailable` for the first one that asks for what cannot be had here."""
    for name, environment in environments.items():
        if environment.sandbox != "none" or environment.cgroups == "required" or environment.cpus is not None:
            reason = await asyncio.to_thread(why_not, environment.sandbox, environment)
            if reason:
                message = f"environment {name!r}: sandbox={environment.sandbox!r}: {reason['message']}"
                raise EnvironmentFailed("sandbox_unavailable", message, hint=reason["hint"] or None)
