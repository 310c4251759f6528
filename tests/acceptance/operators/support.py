"""The commands of operators, run as they would, against a real service."""

from __future__ import annotations

import asyncio
import json
import subprocess
from typing import TYPE_CHECKING, Any

from tests.acceptance.cli.support import CAPSULE, HANG, clean_environment
from tests.acceptance.serve.support import LONG

if TYPE_CHECKING:
    from pathlib import Path

    from capsule import AsyncExecution


async def capsule(*arguments: str | Path, stdin: bytes = b"", **env: str) -> subprocess.CompletedProcess[bytes]:
    """Run `capsule` to its end, while the clients of the test go on."""
    return await asyncio.to_thread(
        subprocess.run,
        [CAPSULE, *arguments],
        input=stdin,
        capture_output=True,
        timeout=HANG,
        check=False,
        env=clean_environment(**env),
    )


async def answer(*arguments: str | Path) -> Any:
    """What a command says with `--json`."""
    done = await capsule(*arguments, "--json")
    assert done.returncode == 0, done
    return json.loads(done.stdout)


async def runs(execution: AsyncExecution) -> None:
    """Wait until its code runs."""
    async with asyncio.timeout(LONG):
        while execution.state != "running":
            await asyncio.sleep(0.001)
