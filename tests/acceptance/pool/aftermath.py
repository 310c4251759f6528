"""What is left when a caller has been killed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psutil

from tests.acceptance.pool.support import LONG

if TYPE_CHECKING:
    from pathlib import Path


def processes_in(directory: Path) -> list[psutil.Process]:
    """Those with this TMPDIR, known by their environment whoever started them, that do not end by themselves."""
    mine = [process for process in psutil.process_iter() if _is_in(process, directory)]
    return list(psutil.wait_procs(mine, timeout=LONG)[1])


def _is_in(process: psutil.Process, directory: Path) -> bool:
    try:
        return process.environ().get("TMPDIR") == str(directory)
    except psutil.Error:
        return False
