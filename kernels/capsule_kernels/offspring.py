"""All that a keeper has below it: the process that it has forked, and what comes of that, wherever it goes.

The keeper is the subreaper of all of it, or the first process of its namespace.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from typing import TYPE_CHECKING

from capsule_kernels import system

if TYPE_CHECKING:
    from collections.abc import Callable
    from resource import struct_rusage


class Offspring:
    """Of the calling process, which has just forked the `first`."""

    def __init__(self, first: int) -> None:
        self.first = first
        self.alive = True
        """Whether the first one has not ended."""
        self.childless = False
        """Whether all have ended."""
        self._killed: set[int] = set()

    def kill_first(self) -> None:
        """Kill the first one and its process group in one step, which no forking in a loop can outrun.

        It has not been reaped while it is alive, so its number belongs to nobody else.
        """
        if self.alive:
            with suppress(ProcessLookupError):
                os.killpg(self.first, signal.SIGKILL)
            os.kill(self.first, signal.SIGKILL)

    def kill(self) -> None:
        """Kill all that there is below the keeper, also what left the process group or the session.

        Those that were killed before are passed by: each death wakes the keeper, and to walk past all that still die
        would keep it from seeing who is new. Their children have been found, or have come to the keeper since.
        """
        if os.getpid() == 1:
            with suppress(ProcessLookupError):
                os.kill(-1, signal.SIGKILL)  # all of the namespace but its first process
            return
        for pid in system.walk(os.getpid(), self._killed):
            self._killed.add(pid)
            system.signal_all([pid], signal.SIGKILL)

    def look_again(self) -> None:
        """Those that were killed and are still there are killed once more."""
        self._killed.clear()

    def reap(self, on_end: Callable[[int, struct_rusage], None]) -> None:
        """Take in those that have ended; `on_end` is told of the first one, how and at which cost."""
        try:
            while ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                is_first = ended.si_pid == self.first
                if is_first:
                    self.kill_first()
                    self.alive = False
                _, status, usage = os.wait4(ended.si_pid, 0)
                self._killed.discard(ended.si_pid)  # the number may be another's from here on
                if is_first:
                    on_end(os.waitstatus_to_exitcode(status), usage)
        except ChildProcessError:
            self.childless = True
