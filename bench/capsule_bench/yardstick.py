"""What the machine takes for the few things that all else is made of, without anything of Capsule's.

Figures of two machines, or of two days on one that is shared, can be compared only with these beside them.
`python -m capsule_bench.yardstick` prints them: it forks, so it has a process of its own.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

STEPS = 200_000
REPEATS = 7
ROUND_TRIPS = 500
PAGE = bytes(4096)
SYNCS = 100


def yardstick() -> dict[str, float]:
    """As `measured`, by a process of its own."""
    command = [sys.executable, "-P", "-m", "capsule_bench.yardstick"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=60)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def measured() -> dict[str, float]:
    """Medians of several goes.

    `python_ns`: one turn of an empty loop. `wake_us`: a byte to another process and back. `fork_ms`: fork a small
    process and wait for its end. `sync_ms`: write a page of a file that has its length already, and sync it, where
    temporary files are.
    """
    return {
        "python_ns": _median(_loop) / STEPS * 1e9,
        "wake_us": _median(_round_trips) / ROUND_TRIPS * 1e6,
        "fork_ms": _median(_fork) * 1e3,
        "sync_ms": _synced_page() * 1e3,
    }


def _median(go: Callable[[], float]) -> float:
    return statistics.median(go() for _ in range(REPEATS))


def _loop() -> float:
    begin = time.perf_counter()
    for _ in range(STEPS):
        pass
    return time.perf_counter() - begin


def _round_trips() -> float:
    there, back = os.pipe(), os.pipe()
    child = os.fork()
    if not child:
        try:
            os.close(there[1])
            while byte := os.read(there[0], 1):
                os.write(back[1], byte)
        finally:
            os._exit(0)
    os.close(there[0])
    os.close(back[1])
    try:
        begin = time.perf_counter()
        for _ in range(ROUND_TRIPS):
            os.write(there[1], b"x")
            os.read(back[0], 1)
        return time.perf_counter() - begin
    finally:
        os.close(there[1])
        os.close(back[0])
        os.waitpid(child, 0)


def _fork() -> float:
    begin = time.perf_counter()
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)
    return time.perf_counter() - begin


def _synced_page() -> float:
    with tempfile.TemporaryFile() as file:
        file.write(PAGE * SYNCS)
        file.flush()
        os.fsync(file.fileno())
        took = []
        for number in range(SYNCS):
            begin = time.perf_counter()
            os.pwrite(file.fileno(), PAGE, number * len(PAGE))
            os.fdatasync(file.fileno())
            took.append(time.perf_counter() - begin)
        return statistics.median(took)


if __name__ == "__main__":
    print(json.dumps(measured()))
