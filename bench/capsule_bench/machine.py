"""Where and on what a result was measured."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

from capsule_bench.model import Memory
from capsule_bench.yardstick import yardstick


def machine() -> dict[str, str | int | float]:
    """Processor, cores, memory, system, how busy the machine was when the run began, and how fast it is."""
    return {
        "cpu": _processor(),
        "cores": os.cpu_count() or 1,
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "load": round(os.getloadavg()[0], 2),
        **{name: round(value, 3) for name, value in yardstick().items()},
    }


def commit() -> str:
    """The commit this package is run from, with `+` where the tree differs from it; "" outside a checkout."""
    head = _git("rev-parse", "--short=12", "HEAD")
    return head + ("+" if head and _git("status", "--porcelain", "--untracked-files=no") else "")


def versions(packages: tuple[str, ...]) -> dict[str, str]:
    """The installed versions of the named distributions; those that are not installed are left out."""
    found = {}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def memory() -> Memory:
    """What this process and all its descendants take now."""
    children = _descendants(os.getpid())
    return Memory(
        rss=_smaps(os.getpid(), "Rss"),
        rss_children=sum(_smaps(pid, "Rss") for pid in children),
        pss_children=sum(_smaps(pid, "Pss") for pid in children),
    )


def own_memory(pid: int) -> int:
    """The bytes that belong to a process alone (USS)."""
    return _smaps(pid, "Private_Clean") + _smaps(pid, "Private_Dirty")


def resident_bytes(pid: int) -> int:
    """The bytes that a process holds, shared ones too (RSS)."""
    return _smaps(pid, "Rss")


def processor_seconds(pid: int) -> float:
    """The processor time that a process has taken since it began."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _git(*arguments: str) -> str:
    here = Path(__file__).parent
    try:
        done = subprocess.run(
            ["git", "--no-optional-locks", *arguments], cwd=here, capture_output=True, text=True, check=False
        )
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _descendants(pid: int) -> list[int]:
    found: list[int] = []
    try:
        lists = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    except OSError:  # ended while we looked
        return found
    for child in map(int, " ".join(lists).split()):
        found += [child, *_descendants(child)]
    return found


def _smaps(pid: int, field: str) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:  # ended while we looked, or another user's
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:")), 0)
