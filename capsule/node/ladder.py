"""The ladder that ends an execution: interrupt, after a grace interrupt again, after another grace kill.

Where nobody is to be killed for an interrupt, the last step gives up what a subshell runs, and else waits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from capsule.node.execution import Execution

Reason = Literal["interrupt", "timeout", "output_limit"]
"""Why the execution is to end; a later reason does not replace an earlier one that kills."""


class Ladder:
    """Climbed by timers until the verdict comes. Each step is told to the client before it is taken."""

    __slots__ = ("_execution", "_grace", "_interrupt", "_last", "_loop", "_timer", "killed", "kills", "over", "reason")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        execution: Execution,
        reason: Reason,
        grace: float,
        interrupt: Callable[[], None],
        last: Callable[[], None],
        *,
        kills: bool = True,
    ) -> None:
        """`last` is the last step, which kills the worker if it `kills`."""
        self._loop = loop
        self._execution = execution
        self._grace = grace
        self._interrupt = interrupt
        self._last = last
        self._timer: asyncio.TimerHandle | None = None
        self.reason = reason
        self.kills = kills
        self.killed = False
        self.over = False
        """It has come to its end, which may not be that of the execution."""

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

    def yields_to(self, reason: Reason) -> bool:
        """Whether another one may begin: this one has come to nothing, or will not kill, which that one does."""
        return not self.kills and (self.over or reason != "interrupt")

    def _again(self) -> None:
        self._execution.status("interrupting_again", self.reason)
        self._interrupt()
        self._timer = self._loop.call_later(self._grace, self._end)

    def _end(self) -> None:
        self._timer = None
        self.over = True
        if self.kills:
            self._execution.status("killing", self.reason)
        self.killed = self.kills
        self._last()
