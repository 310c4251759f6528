"""The worker's end of the two output pipes: what Python code prints, kept in order with what anything else writes.

Descriptors 1 and 2 are pipes that the node reads. Python-level text goes into the same pipes, so that `print`,
`os.write`, C code and child processes keep their order, and nothing that has reached a pipe is lost when the worker
dies. Text is first held in the shared page (many prints, one write); what is held there at a death, the node reads
from the page. Marks in the pipes tell whose bytes follow (protocol/README.md, "Worker link").
"""

from __future__ import annotations

import fcntl
import os
import select
import termios
import threading
import time
from typing import TYPE_CHECKING, NamedTuple

from capsule_kernels import system
from capsule_kernels.attribution import OWNER
from capsule_kernels.attribution import owner as current_owner
from capsule_protocol import marks
from capsule_protocol.page import FLOOR, FLUSHES, HELD, INTERRUPTED, RUNNING, SINCE, STARTED, TEXT_SIZE, TIMED_OUT, Page

if TYPE_CHECKING:
    from collections.abc import Callable

    from capsule_kernels.interrupts import Interrupts

HOLD = 0.01
"""Seconds that text is held at most while Python code can run: longer than a print, shorter than an eye notices."""
_DIRECT = 16 * 1024
"""A write of this many bytes goes into the pipe without being held."""
_NOTHING = bytes(4)
_ANY = -1
"""The last writer may have written to both streams."""
_write = os.write  # streams.install wraps os.write for user code


class Ended(NamedTuple):
    """An execution that has ended: when it began, in clock ticks; whether its time had passed; whether its children
    have been interrupted.
    """

    since: int
    timed_out: bool
    children_told: bool


class Outlet:
    """Both pipes of a worker. Thread-safe; a fork of the worker, from `watch_forks` on, writes plainly."""

    def __init__(self, descriptors: tuple[int, int], page: Page, token: bytes, interrupts: Interrupts) -> None:
        self._descriptors = descriptors
        self._page = page
        self._token = token
        self._interrupts = interrupts
        self._areas = (page.text(0), page.text(1))
        self._held = [0, 0]
        self._owners = [0, 0]
        self._broken = [False, False]
        self._last = 0
        self._left = 0
        self._fence = 0
        self._serial = 0
        self._flushed = 0.0
        self._eager = [False, False]
        self._lock = threading.RLock()
        self.detached = False
        self.ask_for_flush: Callable[[], object] = self.flush

    def writer(self, stream: int) -> Callable[[str], int]:
        """The `write` of a text stream. Text that only joins what is held already takes a short way: `print` is hot."""
        acquire, release, interrupts = self._lock.acquire, self._lock.release, self._interrupts
        held, owners, area, words = self._held, self._owners, self._areas[stream], self._page.words
        slot, get_owner, encode, eager = HELD[stream] >> 3, OWNER.get, str.encode, self._eager

        def write(text: str, /) -> int:
            data = b"\n" if text == "\n" else encode(text, "utf-8", "backslashreplace")
            if acquire(False):  # noqa: FBT003  # by keyword it costs twice as much
                start = held[stream]
                end = start + len(data)
                if start and end <= TEXT_SIZE and get_owner() == owners[stream] and not eager[stream]:
                    area[start:end] = data
                    held[stream] = words[slot] = end
                    release()
                    if interrupts.pending:
                        interrupts.settle()
                    return len(text)
                release()
            if data:
                self.write(stream, data)
            return len(text)

        return write

    def write(self, stream: int, data: bytes) -> None:
        """Write bytes to stdout (0) or stderr (1) for the execution that the calling code belongs to."""
        if self.detached:
            _write_all(stream + 1, data)
            return
        serial = max(current_owner() or self._serial, 0)  # NOBODY's is 0 for the node
        self._take()
        try:
            if serial != self._owners[stream]:
                self._hand_over(stream, serial)
            if stream != self._last:
                self._turn_to(stream)
            self._hold(stream, data)
        finally:
            self._lock.release()
        self._interrupts.settle()

    @property
    def in_step(self) -> bool:
        """Whether the caller interrupts a step of its own thread's in here: the garbage collector runs it."""
        return bool(self._lock._is_owned())  # type: ignore[attr-defined]  # noqa: SLF001  # as in `_take`

    def begin(self, serial: int) -> None:
        """From here on, bytes that nobody claims belong to this execution."""
        self._take()
        try:
            self._flush_both()
            self._serial = serial
            if self._is_empty():
                self._page.set(FLOOR, serial)
            else:
                for stream in (0, 1):
                    self._mark(stream, marks.pack(self._token, serial, 0, 0))
            self._owners[:] = serial, serial
            self._page.set(SINCE, system.now_ticks())
            self._page.set(STARTED, serial)
            self._page.set(RUNNING, serial)
        finally:
            self._lock.release()

    def end(self) -> Ended:
        """The code has ended."""
        serial = self._page.get(RUNNING)
        self._page.set(RUNNING, 0)  # first: the box does nothing more from here on
        timed_out, told = self._page.get(TIMED_OUT) == serial, self._page.get(INTERRUPTED) == serial
        return Ended(self._page.get(SINCE), timed_out=timed_out, children_told=told)

    def fence(self, *, message: bool) -> int:
        """Everything written so far comes before the message that carries the number returned.

        With `message`, what is written after it waits for that message. Without, the answer is 0 if the node has read
        everything already: then no fence is needed.
        """
        self._take()
        try:
            self._flush_both()
            if any(self._broken) or (not message and self._is_empty()):
                return 0
            self._fence += 1
            flags = marks.FENCE | (marks.MESSAGE if message else 0)
            for stream in (0, 1):
                self._mark(stream, marks.pack(self._token, self._owners[stream], self._fence, flags))
            return 0 if any(self._broken) else self._fence
        finally:
            self._lock.release()

    def flush(self) -> None:
        """Put all held text into the pipes; waits while the node does not read."""
        if self.detached:
            return
        self._take()
        try:
            self._flush_both()
        finally:
            self._lock.release()
        self._interrupts.settle()

    def before_other_writer(self, stream: int | None = None) -> None:
        """Something else than `write` writes next: to this stream, or (None) to whichever it likes."""
        if self.detached:
            return
        self._take()
        try:
            self._flush_both()
            if stream is None:
                self._last = _ANY
                if not self._is_empty():
                    self.fence(message=False)
            elif stream != self._last:
                self._turn_to(stream)
        finally:
            self._lock.release()
        self._interrupts.settle()

    def flush_if_possible(self) -> None:
        """As `flush`, from the I/O thread: never waits, neither for the node nor for a thread that is writing."""
        if self.detached or not self._lock.acquire(blocking=False):
            return
        try:
            for stream in (0, 1):
                if self._held[stream] and select.select((), (self._descriptors[stream],), (), 0)[1]:
                    self._flush(stream)
        except BlockingIOError:
            return  # the pipe has room for some of it only: what is left stays held
        finally:
            self._lock.release()

    def watch_forks(self) -> None:
        """Have `detach` called in each process that this one forks."""
        os.register_at_fork(after_in_child=self.detach)

    def detach(self) -> None:
        """This process is a fork of the worker: pages and marks are the worker's alone."""
        self.detached = True
        self._held[:] = 0, 0

    def _take(self) -> None:
        """Lock; while another thread holds the lock, the main thread can be interrupted."""
        if self._lock.acquire(False):  # noqa: FBT003  # by keyword it costs twice as much
            return
        self._interrupts.stall(True)  # noqa: FBT003  # as above
        try:
            self._lock.acquire()
        except BaseException:
            if self._lock._is_owned():  # type: ignore[attr-defined]  # noqa: SLF001  # the interrupt came after it
                self._lock.release()
            raise
        finally:
            self._interrupts.stall(False)  # noqa: FBT003

    def _hold(self, stream: int, data: bytes) -> None:
        size = len(data)
        held = self._held[stream]
        if held + size > TEXT_SIZE or size >= _DIRECT:
            self._flush(stream)
            held = 0
        if size >= _DIRECT:
            self._send(stream, data)
            return
        self._areas[stream][held : held + size] = data
        self._held[stream] = held + size
        self._page.set(HELD[stream], held + size)
        if held == 0:
            self._eager[stream] = time.monotonic() - self._flushed > HOLD
        # Nothing was written lately: a line goes out at once and in one piece. `print` writes its newline by itself.
        if self._serial != self._owners[stream] or (self._eager[stream] and data.endswith(b"\n")):
            self._flush(stream)
        elif held == 0:
            self.ask_for_flush()

    def _flush_both(self) -> None:
        if self._held[0]:
            self._flush(0)
        if self._held[1]:
            self._flush(1)

    def _flush(self, stream: int) -> None:
        held = self._held[stream]
        if held:
            self._write_held(stream, held)
            self._flushed = time.monotonic()
            self._eager[stream] = False
        if self._owners[stream] != self._serial:
            self._hand_over(stream, self._serial)

    def _write_held(self, stream: int, held: int) -> None:
        """Write the held text and a mark that says so: if the worker dies now, the node knows what it has."""
        number = self._page.get(FLUSHES[stream])
        mark = marks.pack(self._token, self._owners[stream], number & 0xFFFFFFFF, marks.FLUSHED)
        area = self._areas[stream]
        if held + marks.MARK_SIZE <= select.PIPE_BUF:  # both at once, or neither
            self._send(stream, bytes(area[:held]) + mark)
            self._set_held(stream, 0)
            self._page.set(FLUSHES[stream], number + 1)
            return
        try:
            self._send(stream, area[:held])
        finally:
            left = self._left
            if left:  # an interrupt came while the pipe was full
                area[:left] = bytes(area[held - left : held])
            self._set_held(stream, left)
        self._mark(stream, mark)
        self._page.set(FLUSHES[stream], number + 1)

    def _set_held(self, stream: int, size: int) -> None:
        self._held[stream] = size
        self._page.set(HELD[stream], size)

    def _hand_over(self, stream: int, serial: int) -> None:
        """The bytes that follow in this pipe belong to another execution."""
        if self._held[stream]:
            self._flush(stream)
        if self._owners[stream] != serial:
            self._mark(stream, marks.pack(self._token, serial, 0, 0))
            self._owners[stream] = serial

    def _turn_to(self, stream: int) -> None:
        """The writer changes the stream: what stands in the other one comes first."""
        if self._held[1 - stream]:
            self._flush(1 - stream)
        self._last = stream
        if not self._is_empty():
            self.fence(message=False)

    def _is_empty(self) -> bool:
        """Whether the node has read all that was ever written to the pipes."""
        first, second = self._descriptors
        try:
            return (
                fcntl.ioctl(first, termios.FIONREAD, _NOTHING) == _NOTHING
                and fcntl.ioctl(second, termios.FIONREAD, _NOTHING) == _NOTHING
            )
        except OSError:  # user code closed one of them
            return False

    def _mark(self, stream: int, mark: bytes) -> None:
        """A mark is written whole or not at all (it is smaller than PIPE_BUF), and no interrupt may part two marks."""
        self._send(stream, mark, patient=True)

    def _send(self, stream: int, data: bytes | memoryview, *, patient: bool = False) -> None:
        view = memoryview(data)
        self._left = len(view)
        while view and not self._broken[stream]:
            try:
                view = view[_write(self._descriptors[stream], view) :]
            except BlockingIOError:
                self._stall(stream, patient=patient)
            except OSError:  # user code closed the descriptor, or the node is gone: nobody can be told
                self._broken[stream] = True
            self._left = len(view)

    def _stall(self, stream: int, *, patient: bool) -> None:
        """Wait until the node reads on; an interrupt may end the wait, unless half of a fence stands written."""
        if not patient and threading.current_thread().name == "capsule-io":
            raise BlockingIOError
        waiter = select.poll()
        waiter.register(self._descriptors[stream], select.POLLOUT)
        self._interrupts.stall(not patient)
        try:
            waiter.poll()
        finally:
            self._interrupts.stall(False)  # noqa: FBT003


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[_write(descriptor, view) :]
