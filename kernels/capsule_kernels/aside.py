"""Interrupts of code that runs in a thread: signals reach the main thread only.

An exception is raised in the thread by Python's own means for that, which act when the thread next runs bytecode. So
what waits is ended by other means: an await is cancelled, a sleep woken, a question withdrawn; who waits to be notified
is, and a program that is waited for gets SIGINT, with all that it has started. A signal to the thread would help
nobody: Python goes on with what the system has interrupted, unless it is the main thread's (PEP 475). So what else
waits in C, such as for a bare lock or a socket, cannot be ended before it returns.
"""

from __future__ import annotations

import ctypes
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from capsule_kernels import system
from capsule_kernels.interrupts import is_ours, is_whole

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

_raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc
_raise_in.argtypes = [ctypes.c_ulong, ctypes.py_object]
_CONDITION = threading.Condition.wait.__code__
"""What waits in events, queues, semaphores, futures: for a lock that nobody else has."""
_NEAR = 5
"""How many frames below a method of a `Popen` it can wait: in those of `selectors`."""
_NOTHING = ctypes.py_object()  # NULL, which takes back what is pending


class AsideInterrupts:
    """The interrupt state of one thread. `interrupt` is called by another one, everything else by itself."""

    def __init__(self) -> None:
        self.armed = 0
        self.cancel: Callable[[], object] | None = None
        self._thread = 0
        self._wanted = 0
        self._raised = False
        self._lock = threading.Lock()
        self._woken = threading.Event()
        self._sleeping = False

    @property
    def asked(self) -> bool:
        """Whether the armed execution has been interrupted."""
        return self._raised

    def arm(self, serial: int) -> None:
        """Let the execution be interrupted from here on; raises KeyboardInterrupt if that was asked for already."""
        self._thread = threading.get_ident()
        with self._lock:
            self.cancel = None
            self.armed = serial
            self._raised = self._wanted == serial
        if self._raised:
            raise KeyboardInterrupt

    def disarm(self) -> None:
        """Nothing is raised any more, not even what has been asked for and did not get to it."""
        with self._lock:
            self.armed = 0
            self.cancel = None
            _raise_in(self._thread, _NOTHING)

    def sleep(self, seconds: float) -> None:
        """As `time.sleep`; raises KeyboardInterrupt when it is interrupted."""
        with self._lock:
            self._woken.clear()
            self._sleeping = True
        woken = self._woken.wait(seconds)
        with self._lock:
            self._sleeping = False
            woken = woken or self._woken.is_set()
        if woken:
            raise KeyboardInterrupt

    def interrupt(self, serial: int) -> bool:
        """Interrupt an execution, also before it begins; False: not at this moment, try again a little later."""
        with self._lock:
            self._wanted = serial
            if self.armed != serial:
                return True
            if self.cancel is not None:
                self._raised = True
                self.cancel()
                return True
            if self._sleeping:
                self._raised = True
                self._woken.set()
                return True
            frame = sys._current_frames().get(self._thread)  # noqa: SLF001  # there is no other way
            if is_ours(frame) or is_whole(frame):
                return False
            self._raised = True
            _raise_in(self._thread, KeyboardInterrupt)
            _wake(frame)
            return True


def _wake(frame: FrameType | None) -> None:
    """End what this thread waits for, if that can be done from here; then it runs bytecode, and the exception comes."""
    if frame is not None and frame.f_code is _CONDITION:
        waiter = frame.f_locals.get("waiter")
        if waiter is not None:
            with suppress(RuntimeError):  # somebody else has notified it
                waiter.release()
    for _ in range(_NEAR):
        if frame is None:
            return
        process = frame.f_locals.get("self") if frame.f_code.co_filename == subprocess.__file__ else None
        if isinstance(process, subprocess.Popen):
            if process.returncode is None:
                # with its own programs, as a terminal does: a shell waits for them first
                system.signal_all([process.pid, *system.descendants(process.pid)], signal.SIGINT)
            return
        frame = frame.f_back
