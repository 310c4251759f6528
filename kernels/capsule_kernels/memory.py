"""How much memory a process tree costs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_PAGE = os.sysconf("SC_PAGE_SIZE")


def exceeds(pids: Sequence[int], limit: int, give_up: Callable[[], bool] = lambda: False) -> bool:
    """Whether these processes together hold more than `limit` bytes.

    What they share with each other or with the zygote counts once and by share (PSS). That is dear to ask for, so it is
    asked only when the cheap upper bound, their resident sizes, is over the limit. Each answer may also be long in
    coming, while the process forks: between them the caller is asked whether to give up, which means no.
    """
    if sum(map(resident_bytes, pids)) <= limit:
        return False
    total = 0
    for pid in pids:
        if total > limit or give_up():
            break
        total += _proportional(pid)
    return total > limit


def resident_bytes(pid: int) -> int:
    """The resident size of a process in bytes, 0 if it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_bytes().split()[1]) * _PAGE
    except (OSError, IndexError):
        return 0


def _proportional(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_bytes().splitlines()
    except PermissionError:  # the process changed its identity: its resident size is all that can be known
        return resident_bytes(pid)
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(b"Pss:")), 0)
