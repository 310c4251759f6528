"""What a process holds for itself alone, and what it has used, as the system counts it."""

from __future__ import annotations

import os
from pathlib import Path


def own_bytes(pid: int) -> int:
    """The memory that would be free if the process ended: pages that it shares with its zygote do not count.

    0 if the process has ended.
    """
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(("Private_Clean:", "Private_Dirty:")))


def cpu_seconds(pid: int) -> float:
    """The processor time that the process has used, and those of its children that have ended; 0.0 if it has ended."""
    return _seconds(Path(f"/proc/{pid}/stat"))


def computed(pid: int, *, aside: bool) -> float:
    """What an execution of this worker has used, and others before it: of the threads the main one only.

    `aside`: in a subshell another thread runs the code; which, the worker knows, so all count.
    """
    return cpu_seconds(pid) if aside else _seconds(Path(f"/proc/{pid}/task/{pid}/stat"))


def _seconds(stat: Path) -> float:
    try:
        fields = stat.read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
