"""What `capsule doctor` looks at: one module for each group of checks. They give findings, and change nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from capsule.doctor import clock, configuration, directories, kernel, limits, node, sandbox, sqlite
from capsule.doctor.finding import CODES, Finding

if TYPE_CHECKING:
    import os

__all__ = ["CODES", "Finding", "examine"]


async def examine(config: str | os.PathLike[str] | None = None, address: str | None = None) -> list[Finding]:
    """All findings, in the order of `CODES`. `address`: a node that must answer; None: the configured, if it runs."""
    loaded, findings = configuration.examine(config)
    findings += directories.examine(loaded)
    findings += kernel.examine()
    findings += sandbox.examine(loaded)
    findings += limits.examine(loaded)
    findings.append(sqlite.examine())
    findings += await clock.examine()
    findings.append(await node.examine(address, loaded))
    return findings
