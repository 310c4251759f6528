"""Which levels of the sandbox this machine can give to programs: tried in a process of its own, once for each."""

from __future__ import annotations

import subprocess
import sys
from functools import cache

LEVELS = ("namespaces", "landlock", "none")
CPUS = "cpus"
"""A limit that not every machine can keep; asked for as a level is."""
_PATIENCE = 60.0


@cache
def lacking(level: str) -> str:
    """Why the level cannot be had here, "" if it can."""
    if level == "none":
        return ""
    command = [sys.executable, "-P", "-m", "capsule_kernels.programs.launcher", "--lacking", level]
    try:
        done = subprocess.run(
            command, cwd="/", env={}, stdin=subprocess.DEVNULL, capture_output=True, timeout=_PATIENCE, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"it could not be tried: {error}"
    if done.returncode:
        return f"it could not be tried: {done.stderr.decode(errors='replace')[-500:]}"
    return done.stdout.decode(errors="replace")


def available() -> str:
    """Those that can be had."""
    return ", ".join(level for level in LEVELS if not lacking(level))
