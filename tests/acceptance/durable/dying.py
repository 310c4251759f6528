"""A `capsule` that kills itself on the way of an execution: `python dying.py POINT HITS CAPSULE ARGUMENTS`.

It does so when, after SIGUSR1, it comes by the point for the so manieth time. With `in doubt` and `no room` the store
fails instead, and with `slow` it writes nothing from one SIGUSR1 to the next. With `crowd` it dies as soon as more than
so many executions are being written down.
"""

from __future__ import annotations

import functools
import inspect
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

from capsule.cli import main
from capsule.events import Finished, Output
from capsule.node.durable import Ledger, Scribe
from capsule.node.front.peer import Peer
from capsule.node.worker import Worker
from capsule_bridge import Bridge, SqliteStore, durability
from capsule_bridge.sqlite.faults import FaultPoint


def any_call(*_: Any) -> bool:
    return True


def of_output(_: Scribe, event: object) -> bool:
    return isinstance(event, Output)


def of_verdict(_: Any, *arguments: object) -> bool:
    return isinstance(arguments[-1], Finished)


POINTS: dict[str, tuple[type, str, bool, Callable[..., bool]]] = {
    "accepted": (Ledger, "accept", False, any_call),
    "committed": (Ledger, "accept", True, any_call),
    "started": (Scribe, "start", True, any_call),
    "dispatched": (Worker, "execute", True, any_call),
    "first output": (Scribe, "write", False, of_output),
    "verdict": (Scribe, "write", False, of_verdict),
    "settled": (Bridge, "settle", True, any_call),
    "answered": (Peer, "tell", True, of_verdict),
}
"""A function, whether death comes behind it or before it, and which calls of it count."""
IN_THE_STORE = ("executed", "before_commit")


class Death:
    """Comes with the last pass."""

    def __init__(self, passes: int) -> None:
        self._left = passes
        self._armed = False
        self._again = threading.Event()
        signal.signal(signal.SIGUSR1, self._arm)

    def _arm(self, *_: object) -> None:
        if self._armed:
            self._again.set()
        self._armed = True

    def pass_by(self) -> None:
        self._left -= self._armed
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def fail(self, at: FaultPoint) -> None:
        """As a disk does that says it has failed and has not."""
        if at == "committed" and self._armed and self._left > 0:
            self._left -= 1
            raise OSError(5, "Input/output error")

    def refuse(self, at: FaultPoint) -> None:
        """As a disk does that is full, until somebody makes room."""
        if at == "begun" and not self._armed:
            raise OSError(28, "No space left on device")

    def wait(self, at: FaultPoint) -> None:
        """As a disk does that takes its time."""
        if at == "begun" and self._armed:
            self._again.wait()


def lay(death: Death, owner: type, name: str, behind: bool, counts: Callable[..., bool]) -> None:
    """Put death into a function."""
    function = getattr(owner, name)

    @functools.wraps(function)
    def plain(*arguments: Any, **named: Any) -> Any:
        counted = counts(*arguments)
        if counted and not behind:
            death.pass_by()
        answer = function(*arguments, **named)
        if counted and behind:
            death.pass_by()
        return answer

    @functools.wraps(function)
    async def waiting(*arguments: Any, **named: Any) -> Any:
        if not behind:
            death.pass_by()
        answer = await function(*arguments, **named)
        if behind:
            death.pass_by()
        return answer

    setattr(owner, name, waiting if inspect.iscoroutinefunction(function) else plain)


def bear(most: int) -> None:
    """Die when more than so many are in the midst of being accepted."""
    accept = Ledger.accept
    inside = 0

    @functools.wraps(accept)
    async def counted(*arguments: Any, **named: Any) -> Any:
        nonlocal inside
        inside += 1
        if inside > most:
            os.kill(os.getpid(), signal.SIGKILL)
        try:
            return await accept(*arguments, **named)
        finally:
            inside -= 1

    Ledger.accept = counted  # type: ignore[method-assign]


if __name__ == "__main__":
    point, passes, *sys.argv = sys.argv[1:]
    coming = Death(int(passes))
    if point in POINTS:
        lay(coming, *POINTS[point])
    elif point == "crowd":
        bear(int(passes))
    else:
        faults = {"in doubt": coming.fail, "no room": coming.refuse, "slow": coming.wait}
        fault = faults.get(point, lambda at: coming.pass_by() if at == point else None)
        vars(durability)["SqliteStore"] = functools.partial(SqliteStore, fault=fault)
    main()
