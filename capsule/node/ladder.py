"""The ladder that ends an execution: interrupt, after a grace interrupt again, after another grace kill.

What a subshell runs nobody is killed for, when it is only interrupted: the last step then gives it up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from capsule.node.execution import Execution

Reason = Literal["interrupt", "timeout", "output_limit"]
"""Why the execution is to end; a later reason does not replace an earlier one."""


class Ladder:
    """Climbed by timers until the verdict comes. Each step is told to the client before it is taken."""

    __slots__ = ("_execution", "_grace", "_interrupt", "_kill", "_kills", "_loop", "_timer", "killed", "reason")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        execution: Execution,
        reason: Reason,
        grace: float,
        interrupt: Callable[[], None],
        kill: Callable[[], None],
        *,
        kills: bool = True,
    ) -> None:
        """`kill` is the last step; unless it `kills`, it ends nothing but the waiting."""
        self._loop = loop
        self._execution = execution
        self._grace = grace
        self._interrupt = interrupt
        self._kill = kill
        self._kills = kills
        self._timer: asyncio.TimerHandle | None = None
        self.reason = reason
        self.killed = False

    def start(self) -> None:
        """The first step."""
        self._execution.status("interrupting", self.reason)
        self._execution.hurry()
        self._interrupt()
        self._timer = self._loop.call_later(self._grace, self._again)

    def stop(self) -> None:
        """The verdict is there."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _again(self) -> None:
        self._execution.status("interrupting_again", self.reason)
        self._interrupt()
        self._timer = self._loop.call_later(self._grace, self._end)

    def _end(self) -> None:
        self._timer = None
        if self._kills:
            self._execution.status("killing", self.reason)
        self.killed = self._kills
        self._kill()
