"""Messages that a worker keeps until its node has dealt with them for good, so that another node can have them again.

Only where boxes outlive their nodes. Each message that belongs to an execution gets a number, 1, 2, 3 … for the worker,
over both sockets. Any thread may add one, also in the midst of itself (the garbage collector runs user code anywhere,
which may print a display): so there are no locks, and each step on the table is one that Python does not divide.
"""

from __future__ import annotations

import itertools
import os
import threading
from typing import TYPE_CHECKING

from capsule_kernels.channel import out_of_the_way
from capsule_protocol import codec

if TYPE_CHECKING:
    from capsule_protocol.envelope import Envelope, Frames
    from capsule_protocol.limits import Limits

MAX_KEPT = 1024
"""Messages that are kept at most; who adds more waits."""
MAX_KEPT_BYTES = 16 * 2**20
LARGEST = 2**32
"""A number that takes as many bytes as any."""
UNSENT = -1
"""No link."""


class Entry:
    """One message, and by which link it was sent."""

    __slots__ = ("frames", "link", "number", "size")

    def __init__(self, number: int, frames: Frames, link: int) -> None:
        self.number = number
        self.frames = frames
        self.size = sum(map(len, frames))
        self.link = link


class Kept:
    """The messages in the order of their numbers."""

    def __init__(self) -> None:
        self._entries: dict[int, Entry] = {}
        self._numbers = itertools.count(1)
        self._waiting: set[int] = set()
        self._room = out_of_the_way(os.eventfd(0, os.EFD_CLOEXEC | os.EFD_SEMAPHORE))

    def add(self, envelope: Envelope, limits: Limits, link: int) -> Entry:
        """Number a message and keep it; `link` is the one by which the caller sends it itself, or UNSENT.

        Raises LocalProtocolError if it cannot be sent, and then it has no number.
        """
        frames = codec.encode(envelope._replace(sequence=LARGEST), limits)
        number = next(self._numbers)
        frames[0] = codec.encode(envelope._replace(sequence=number, body={}, buffers=()), limits)[0]
        entry = self._entries[number] = Entry(number, frames, link)
        return entry

    def last(self) -> int:
        """The highest number of a message that is kept, or 0."""
        return max(list(self._entries), default=0)

    def is_over(self) -> bool:
        """Whether more is kept than may be."""
        entries = list(self._entries.values())
        return len(entries) > MAX_KEPT or (len(entries) > 1 and sum(entry.size for entry in entries) > MAX_KEPT_BYTES)

    def wait_for_room(self) -> None:
        """Wait until that is not so any more."""
        me = threading.get_ident()
        self._waiting.add(me)
        try:
            while self.is_over():
                os.read(self._room, 8)
        finally:
            self._waiting.discard(me)

    def confirm(self, number: int) -> None:
        """All up to this number need not be kept any more."""
        for old in [each for each in list(self._entries) if each <= number]:
            del self._entries[old]
        if self._waiting:
            os.eventfd_write(self._room, len(self._waiting))

    def unsent(self, link: int) -> list[Entry]:
        """Those that were not sent by this link, in order."""
        return sorted(
            (entry for entry in list(self._entries.values()) if entry.link != link), key=lambda entry: entry.number
        )
