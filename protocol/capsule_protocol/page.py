"""The shared page: a few numbers and two text areas in memory that a node and one worker both map.

It carries what must not wait for a message: whose interruption is asked for, which execution started and ended, and
output that a dead worker had not yet written to its pipes. The worker may write anything into it, so the node trusts no
number that it finds there.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import signal
import zlib

INTERRUPT_SIGNAL: int = signal.SIGRTMIN + 5
"""What the node sends to a worker after it set TARGET: SIGINT is left to user code."""

TARGET = 0
"""Serial of the execution whose interruption the node asks for, or what `target_of` says of a question."""
QUESTION: int = 1 << 63
"""Where the numbers of questions begin: no serial is as high."""
RUNNING = 8
"""Serial of the execution whose code runs now; 0: none."""
FLOOR = 16
"""Serial that owns bytes in the pipes unless a mark names a later one."""
STARTED = 24
"""Serial of the last execution that started."""
SINCE = 32
"""When the last execution started: clock ticks since the system booted, as /proc tells of processes."""
HELD = (40, 48)
"""Per stream (stdout, stderr): how many bytes of its text area are not yet in the pipe."""
FLUSHES = (56, 64)
"""Per stream: the number that the flush of the held text has; if a mark in the pipe has it, the text is in the pipe."""
TIMED_OUT = 72
"""Serial of the execution whose time-out has passed: at its end its child processes are killed."""
INTERRUPTED = 80
"""Serial of the last execution whose child processes the box has interrupted."""

TEXT_OFFSET = 4096
TEXT_SIZE = 65536
PAGE_SIZE = TEXT_OFFSET + 2 * TEXT_SIZE


def target_of(question: str) -> int:
    """What TARGET is when a question is to be interrupted, by the id of its message."""
    return QUESTION | zlib.crc32(question.encode())


def create() -> int:
    """A descriptor of a fresh page, all zero. Its size is sealed: a worker that shrank it would crash the node."""
    fd = os.memfd_create("capsule-page", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, PAGE_SIZE)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    except OSError:
        os.close(fd)
        raise
    return fd


class Page:
    """The page, mapped. A slot is one of the constants above; slots are unsigned 64-bit and written in one step.

    Made from a descriptor (which may be closed afterwards) or from a mapping.
    """

    __slots__ = ("_map", "_texts", "_words")

    def __init__(self, source: int | mmap.mmap) -> None:
        self._map = mmap.mmap(source, PAGE_SIZE) if isinstance(source, int) else source
        whole = memoryview(self._map)
        self._words = whole[:TEXT_OFFSET].cast("Q")
        first, last = TEXT_OFFSET, TEXT_OFFSET + TEXT_SIZE
        self._texts = (whole[first:last], whole[last:PAGE_SIZE])

    @property
    def words(self) -> memoryview:
        """All slots as unsigned 64-bit numbers, for code that cannot pay for a call: slot `n` is number `n >> 3`."""
        return self._words

    def get(self, slot: int) -> int:
        """The number in a slot."""
        return self._words[slot >> 3]

    def set(self, slot: int, value: int) -> None:
        """Put a number into a slot."""
        self._words[slot >> 3] = value

    def text(self, stream: int) -> memoryview:
        """The text area of a stream (0: stdout, 1: stderr), to be written in place."""
        return self._texts[stream]

    def hold(self, stream: int, data: bytes) -> int:
        """Append to the text area of a stream; the answer is how many bytes had room."""
        held = min(self._words[HELD[stream] >> 3], TEXT_SIZE)
        taken = min(len(data), TEXT_SIZE - held)
        self._texts[stream][held : held + taken] = data[:taken]
        # The count last: a process that dies in between has held nothing.
        self._words[HELD[stream] >> 3] = held + taken
        return taken

    def held(self, stream: int) -> bytes:
        """What is held for a stream; a count that cannot be is taken as the whole area."""
        return bytes(self._texts[stream][: self._words[HELD[stream] >> 3]])

    def release(self, stream: int) -> None:
        """Forget what was held: it is in the pipe now."""
        self._words[HELD[stream] >> 3] = 0

    def close(self) -> None:
        """Unmap; the page is of no use afterwards."""
        self._words.release()
        for text in self._texts:
            text.release()
        self._map.close()
