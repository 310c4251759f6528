"""A process that writes to a store and is killed at a place of its writer: `python victim.py FILE MUTANT`.

Each line of its input is a round as JSON. For each it forks a child, which works on the store, tells each fact after it
has been acknowledged, and kills itself. The round ends with `["end", SIGNAL]`. MUTANT is empty, or one of `mutants`.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from capsule_bridge import SqliteStore
from capsule_bridge.sqlite import writer
from capsule_bridge.sqlite.faults import FaultPoint
from tests.unit.bridge.load import heard, load


def main() -> None:
    """Serve rounds until the input ends."""
    path = Path(sys.argv[1])
    # Often enough to be killed there.
    writer.CHECKPOINT_BYTES = 200_000
    if sys.argv[2]:
        from tests.unit.bridge.mutants import MUTANTS

        MUTANTS[sys.argv[2]](pytest.MonkeyPatch())
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            # A process that survives has done all its work, and says so by its end.
            asyncio.run(work(path, json.loads(line)))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        tell("end", os.WTERMSIG(status) if os.WIFSIGNALED(status) else -os.WEXITSTATUS(status))


def tell(*fact: Any) -> None:
    """One write, so that a line is there wholly or not at all."""
    os.write(1, (json.dumps(fact) + "\n").encode())


def killer(point: str, hits: int) -> Callable[[FaultPoint], None]:
    """Ends the process when its writer comes by a point for the so manieth time."""
    loop = asyncio.get_running_loop()
    passed: Counter[str] = Counter()

    def fault(at: FaultPoint) -> None:
        passed[at] += 1
        if at == point and passed[at] == hits:
            heard(loop)
            os.kill(os.getpid(), signal.SIGKILL)

    return fault


async def work(path: Path, order: dict[str, Any]) -> None:
    """Write until the end, or until the fault."""
    store = SqliteStore(path, order["level"], fault=killer(order["point"], order["hits"]))
    await load(store, str(order["round"]), order["seed"], tell)
    await store.close()


if __name__ == "__main__":
    main()
