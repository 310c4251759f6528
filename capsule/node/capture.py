"""Reads the two output pipes of a worker as they become readable, and can stop reading to slow the worker down.

With a journal, by way of that, so that another node can go on with what this one has read (see `journal`).
"""

from __future__ import annotations

import fcntl
import os
import struct
import termios
from typing import TYPE_CHECKING

from capsule_protocol.errors import RemoteProtocolError
from capsule_protocol.page import FLOOR, FLUSHES, STARTED, Page

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from capsule.node.journal import Journal
    from capsule.node.merge import Merge

_INT = struct.Struct("i")

SMALL_READ = 65_536
LARGE_READ = 2**20
HELD_BYTES = 4 * 2**20
"""A pipe whose output waits for the other pipe or for a message is not read beyond this."""
LAST_READS = 64
"""Reads of one pipe after the worker's death; processes that outlive it may write for ever."""


class Capture:
    """The read ends of both pipes (non-blocking; owned from here on). A violation in the marks is told once."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        descriptors: tuple[int, int],
        page: Page,
        merge: Merge,
        on_violation: Callable[[RemoteProtocolError], None],
        journal: Journal | None = None,
    ) -> None:
        self._journal = journal
        self.on_full: Callable[[], object] | None = None
        self._loop = loop
        self._descriptors = descriptors
        self._page = page
        self._merge = merge
        self._on_violation = on_violation
        self._reading = [False, False]
        self._at_end = [False, False]
        self._sizes = [SMALL_READ, SMALL_READ]
        self._started = False
        self._paused = False
        self._closed = False

    @property
    def descriptors(self) -> tuple[int, int]:
        """The read ends."""
        return self._descriptors

    def start(self) -> None:
        """Begin to read."""
        self._started = True
        self._update()

    def pause(self) -> None:
        """Stop reading: the worker's writes block once its pipes are full."""
        self._paused = True
        self._update()

    def resume(self) -> None:
        """Read again."""
        self._paused = False
        self._update()

    def settle(self) -> None:
        """Read again where a pipe was left alone because of what its lane held; call it after a message came."""
        if not (self._reading[0] and self._reading[1]):
            self._update()

    def skip(self) -> None:
        """Take what is in the pipes now; a violation in it is told."""
        try:
            for stream in (0, 1):
                for _ in range(LAST_READS):
                    if self._at_end[stream] or not self._read(stream):
                        break
        except RemoteProtocolError as error:
            self.stop()
            self._on_violation(error)

    def drained(self) -> bool:
        """Whether both pipes are empty now."""
        return not any(_waiting(descriptor) for descriptor in self._descriptors)

    def finish(self) -> None:
        """The worker is dead: deliver what is in the pipes, what was held back, and what the page still holds."""
        self.stop()
        self.skip()
        self._merge.finish()
        owner = min(self._page.get(STARTED), self._merge.newest)
        for stream in (0, 1):
            held = self._page.held(stream)
            if held and self._merge.flush(stream) != self._page.get(FLUSHES[stream]) & 0xFFFFFFFF:
                self._merge.append(stream, held, owner)

    def stop(self) -> None:
        """Stop reading for good; the descriptors stay open."""
        self._closed = True
        self._update()

    def close(self) -> None:
        """Stop and close the descriptors. Idempotent."""
        self.stop()
        descriptors, self._descriptors = self._descriptors, (-1, -1)
        for descriptor in descriptors:
            if descriptor >= 0:
                os.close(descriptor)

    def _update(self) -> None:
        for stream in (0, 1):
            wanted = not (self._paused or self._closed or self._at_end[stream] or self._merge.held(stream) > HELD_BYTES)
            wanted = wanted and self._started and (self._journal is None or not self._journal.full)
            if wanted != self._reading[stream]:
                self._reading[stream] = wanted
                if wanted:
                    self._loop.add_reader(self._descriptors[stream], self._readable, stream)
                else:
                    self._loop.remove_reader(self._descriptors[stream])

    def _readable(self, stream: int) -> None:
        # One read for each wake-up: only then is the pipe known to have held data before FLOOR was looked at, so that
        # a floor raised in between cannot be missed. And no stream keeps the loop to itself.
        try:
            self._read(stream)
        except RemoteProtocolError as error:
            self.stop()
            self._on_violation(error)
            return
        if self._merge.held(0) > HELD_BYTES or self._merge.held(1) > HELD_BYTES:
            self._update()
        elif self._journal is not None and self._journal.full:
            if self.on_full is not None:
                self.on_full()
            self._update()
        else:
            self.settle()

    def _read(self, stream: int) -> bool:
        floor = self._page.get(FLOOR)
        size = self._sizes[stream]
        try:
            if self._journal is None:
                data = os.read(self._descriptors[stream], size)
            else:
                data = self._journal.read(stream, self._descriptors[stream], floor)
        except BlockingIOError:
            return False
        if not data:
            self._at_end[stream] = True
            self._update()
            return False
        self._sizes[stream] = LARGE_READ if len(data) == size else SMALL_READ
        self._merge.feed(stream, data, floor)
        return True


def _waiting(descriptor: int) -> int:
    """How many bytes wait in a pipe."""
    size: int = _INT.unpack(fcntl.ioctl(descriptor, termios.FIONREAD, bytes(_INT.size)))[0]
    return size
