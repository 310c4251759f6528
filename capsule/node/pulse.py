"""Heartbeats: whether a worker's I/O thread gets to run. Its silence is a state to be shown, never a reason to kill."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capsule_protocol.envelope import Envelope

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable


class Pulse:
    """One heartbeat at a time is under way; the next is sent when it was answered."""

    def __init__(self, loop: asyncio.AbstractEventLoop, interval: float, send: Callable[[Envelope], None]) -> None:
        self._loop = loop
        self._interval = interval
        self._send = send
        self._timer: asyncio.TimerHandle | None = None
        self._number = 0
        self._open = False
        self.last = 0.0
        self.responsive = False
        self.paused = False

    def start(self) -> None:
        """A new worker is ready."""
        self.stop()
        self._open = False
        self.responsive = True
        self.paused = False
        self.last = time.time()
        self._timer = self._loop.call_later(self._interval, self._beat)

    def stop(self) -> None:
        """There is no worker."""
        self.responsive = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def answered(self, message: Any) -> None:
        """An answer; only the one to the last heartbeat counts."""
        if self._open and message.number == self._number:
            self._open = False
            self.responsive = True
            self.last = time.time()

    @staticmethod
    def memory(pid: int) -> int:
        """The resident memory of a process, from the system and not from the process."""
        try:
            fields = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()
        except OSError:
            return 0
        return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")

    def _beat(self) -> None:
        self._timer = self._loop.call_later(self._interval, self._beat)
        if self._open:
            self.responsive = self.paused  # while the node does not read, silence says nothing
            return
        self._number += 1
        self._open = True
        self._send(Envelope("heartbeat", {"number": self._number}))
