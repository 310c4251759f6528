"""What a kernel and its machine use, in the words of ipykernel, for `usage_request`."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from capsule.node.info import SessionInfo


class Usage:
    """Shares of processors are those since the request before; the first one tells 0."""

    def __init__(self) -> None:
        self._pid = 0
        self._used = self._at = 0.0
        self._busy = self._all = 0

    def tell(self, info: SessionInfo) -> dict[str, Any]:
        """The content of the reply."""
        return {
            "hostname": socket.gethostname(),
            "pid": info.pid,
            "kernel_cpu": self._of_kernel(info),
            "kernel_memory": info.memory,
            "host_cpu_percent": self._of_host(),
            "cpu_count": os.cpu_count(),
            "host_virtual_memory": _memory(),
        }

    def _of_kernel(self, info: SessionInfo) -> float:
        """Percent of one processor."""
        now = time.monotonic()
        used, passed = info.cpu - self._used, now - self._at
        same = info.pid == self._pid
        self._pid, self._used, self._at = info.pid, info.cpu, now
        return round(max(0.0, 100 * used / passed), 1) if same and passed > 0 else 0.0

    def _of_host(self) -> float:
        """Percent of all processors together."""
        ticks = [int(one) for one in Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:9]]
        idle, total = ticks[3] + ticks[4], sum(ticks)
        busy, passed = total - idle - self._busy, total - self._all
        known = self._all > 0
        self._busy, self._all = total - idle, total
        return round(100 * busy / passed, 1) if known and passed > 0 else 0.0


def _memory() -> dict[str, Any]:
    """Bytes of the machine."""
    lines = (line.split() for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines())
    sizes = {words[0].rstrip(":"): int(words[1]) * 1024 for words in lines}
    total, available = sizes["MemTotal"], sizes["MemAvailable"]
    used = total - available
    return {
        "total": total,
        "available": available,
        "percent": round(100 * used / total, 1),
        "used": used,
        "free": sizes["MemFree"],
    }
