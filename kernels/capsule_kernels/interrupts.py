"""Interrupts: the node's signal becomes a KeyboardInterrupt in the cell it is meant for, and in nothing else.

Or in the question that is answered between two cells: it is armed as a cell is, under a number of its own. There a
signal for a cell that has not begun counts as well, for that waits behind the question.

The node writes the serial of the execution into the shared page and then signals the process, so a signal that comes
late finds another serial armed, or none, and does nothing. A cell is armed from before its first bytecode to after its
last. Four places need care:

- The cell waits in the session's event loop: nothing may be raised inside the loop, its task is cancelled instead.
- The cell is inside the capture, the link or between the two (a fence must be followed by its message): the interrupt
  waits until they are left.
- The cell is in the hands of a debugger: an exception in there ends its tracing, which begins anew with the next cell.
- Our own code around the cell: one exception may be raised there (it stands in a try block), a second one may not.
"""

from __future__ import annotations

import asyncio.base_events
import asyncio.events
import asyncio.selector_events
import selectors
import signal
import threading
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING

from IPython.core import formatters
from IPython.lib import pretty

from capsule_protocol.page import INTERRUPT_SIGNAL, QUESTION, TARGET, Page

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

_HERE = str(Path(__file__).parent)
_WHOLE = frozenset(f"{_HERE}/{name}.py" for name in ("capture", "channel", "kept", "link", "publisher"))
_EXECUTORS = frozenset(f"{_HERE}/executors/{name}.py" for name in ("base", "native_async"))
_LOOP = frozenset(
    str(module.__file__) for module in (asyncio.base_events, asyncio.events, asyncio.selector_events, selectors)
)
_DISPLAY = frozenset(str(module.__file__) for module in (formatters, pretty))
"""IPython's own steps of showing a value: its cleaning up replaces what is raised there by an error, and it goes on."""
_FOR_USERS = f"{_HERE}/sleeping.py"
"""Code of ours that stands for a function of the system's."""
_RETRIES = 8
"""How often an interrupt is put off in those; a value may take long to show."""
_DEEPEST = 12
"""How many frames below the capture or the link a call can be: their own helpers, the codec, msgpack."""


_WAITING = 3
"""How many frames of the library's lie below a debugger that waits."""


class Interrupts:
    """The interrupt state of one worker; everything here runs on the main thread."""

    _page: Page

    def __init__(self, page: Page | None = None) -> None:
        """Without a page nothing can be armed: `attach` is called first."""
        if page is not None:
            self._page = page
        self._main = threading.get_ident()
        self._raised = False
        self._put_off = 0
        self._asking = self._missed = False
        self._debugger = ""
        self._let_go: Callable[[], object] = self._raise
        self._trace_again: Callable[[], object] = self._raise
        self._untraced = False
        self._newest = 0
        self.pending: deque[Callable[[], object]] = deque()
        self.armed = 0
        self.stalled = False
        self.idle = False
        """Set while the link waits for the next message: a handler of user code may run."""
        self.cancel: Callable[[], object] | None = None
        self.again: Callable[[], object] = self._raise
        """Has the signal sent once more, a little later; called by `ask_again` alone."""

    def respect_debugger(self, folder: str, let_go: Callable[[], object], trace_again: Callable[[], object]) -> None:
        """There is a debugger now, with its code in this folder: what is raised in there ends its tracing."""
        self._let_go, self._trace_again = let_go, trace_again
        self._debugger = folder

    @property
    def asked(self) -> bool:
        """Whether the armed execution has been interrupted."""
        return self._raised

    @property
    def runs_code(self) -> bool:
        """Whether it is a cell that is armed, and no question."""
        return self.armed != 0 and self.armed < QUESTION

    def attach(self, page: Page) -> None:
        """This is the worker's page, and the calling thread is its main thread."""
        self._page = page
        self._main = threading.get_ident()

    def install(self) -> None:
        """Take over the interrupt signal and SIGINT. A cell that replaces the handler of SIGINT harms only itself."""
        signal.signal(INTERRUPT_SIGNAL, self.on_interrupt)
        signal.signal(signal.SIGINT, self.on_sigint)

    def arm(self, serial: int) -> None:
        """Let the execution be interrupted from here on; raises KeyboardInterrupt if the node has asked already.

        A question is armed in the same way, with what TARGET is for it.
        """
        self._raised = self.stalled = False
        self._put_off = 0
        self.cancel = None
        if serial < QUESTION:
            self._newest = serial
            if self._untraced:
                self._untraced = False
                self._trace_again()
        self.armed = serial
        if self._page.get(TARGET) == serial:
            raise KeyboardInterrupt
        self.settle()

    def skip(self, serial: int) -> None:
        """This execution was cancelled, and has had its turn: no question waits before it from here on."""
        self._newest = serial

    def disarm(self) -> None:
        """Nothing is raised any more."""
        self.armed = 0
        self.cancel = None
        if self.pending:
            self.pending = deque(call for call in self.pending if call != self._raise)

    def insist(self) -> None:
        """Raise the interrupt of what is armed again, if something has swallowed it."""
        if self._raised and self.armed and threading.get_ident() == self._main:
            raise KeyboardInterrupt

    def stall(self, waiting: bool, /) -> None:
        """The capture or the link waits, or goes on: an interrupt may end a wait of the main thread, no other one."""
        if threading.get_ident() == self._main:
            self.stalled = waiting

    def settle(self) -> None:
        """Do what had to wait while the capture or the link was busy; an interrupt raises here."""
        if threading.get_ident() == self._main:
            while self.pending:
                self.pending.popleft()()

    def when_whole(self, frame: FrameType | None, call: Callable[[], object]) -> None:
        """Call at once; at the next `settle` if a signal in this frame came in the midst of a step of the worker's."""
        if _inside(frame, _WHOLE) and not self.idle:
            self.pending.append(call)
        else:
            call()

    def on_interrupt(self, _signum: int, frame: FrameType | None) -> None:
        """The node's signal."""
        target = self._page.get(TARGET)
        if self.armed and (target == self.armed or (self.armed >= QUESTION > target > self._newest)):
            self._interrupt(frame)

    def on_sigint(self, _signum: int, frame: FrameType | None) -> None:
        """A SIGINT that user code or somebody else sent: it can mean only what runs."""
        if self.armed:
            self._interrupt(frame)

    def ask_again(self) -> None:
        """Have the signal sent once more, for it came where nothing may be raised, or what was raised was swallowed.

        If it comes before this is over, it finds the main thread in the midst of the link, and would wait there for a
        step that is none: so it is asked for again.
        """
        self._missed = True
        while self._missed:
            self._missed, self._asking = False, True
            try:
                self.again()
            finally:
                self._asking = False

    def _interrupt(self, frame: FrameType | None) -> None:
        if self._asking:
            self._missed = True
        elif self._debugger and _within(frame, self._debugger):
            self._untraced = True
            self._let_go()
            self._raise()
        elif self.cancel is not None:
            self._interrupt_waiting(self.cancel, frame)
        elif not self.stalled and _inside(frame, _WHOLE):
            self.pending.append(self._raise)
        elif _inside(frame, _EXECUTORS, deepest=1):  # between a coroutine and its first step
            self.ask_again()
        elif self._put_off < _RETRIES and _inside(frame, _DISPLAY, deepest=2):
            self._put_off += 1
            self.ask_again()
        elif not (self._raised and is_ours(frame)):
            self._raise()

    def _raise(self) -> None:
        self._raised, self.stalled = True, False  # the wait, if it is one, ends here
        raise KeyboardInterrupt

    def _interrupt_waiting(self, cancel: Callable[[], object], frame: FrameType | None) -> None:
        """Cancel the cell's task; asked again, end the task that holds the loop up, if it is not the loop itself."""
        if self._raised and not _inside(frame, _LOOP, deepest=1):
            raise KeyboardInterrupt
        self._raised = True
        cancel()


def is_ours(frame: FrameType | None) -> bool:
    """Whether the innermost code is the worker's own."""
    name = "" if frame is None else frame.f_code.co_filename
    return name.startswith(_HERE) and name != _FOR_USERS


def is_whole(frame: FrameType | None) -> bool:
    """Whether nothing may be raised in this frame: it is in the midst of a step of the worker's, or of IPython's."""
    return _inside(frame, _WHOLE) or _inside(frame, _DISPLAY, deepest=2)


def _inside(frame: FrameType | None, files: frozenset[str], deepest: int = _DEEPEST) -> bool:
    """Whether one of the innermost frames belongs to one of the files."""
    for _ in range(deepest):
        if frame is None:
            return False
        if frame.f_code.co_filename in files:
            return True
        frame = frame.f_back
    return False


def _within(frame: FrameType | None, folder: str) -> bool:
    """Whether one of the innermost frames is code of this folder; it may wait in a lock of the library's."""
    for _ in range(_WAITING):
        if frame is None:
            return False
        if frame.f_code.co_filename.startswith(folder):
            return True
        frame = frame.f_back
    return False
