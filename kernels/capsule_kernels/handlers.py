"""Signal handlers of user code: they run between the steps of the worker's own work, never within one.

A handler may raise (a timeout by SIGALRM does) and may print. Within the capture, that would part what belongs
together; between cells, there is no code that an exception could end.
"""

from __future__ import annotations

import signal
from functools import partial, wraps
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from capsule_kernels.interrupts import Interrupts


class Guard:
    """Stands for a handler of user code at the interpreter."""

    def __init__(self, handler: Callable[[int, FrameType | None], object], guards: Guards) -> None:
        self.handler = handler
        self._guards = guards

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Call the handler, or have it called as soon as the worker's own step has ended."""
        self._guards.interrupts.when_whole(frame, partial(self._call, number, frame))

    def _call(self, number: int, frame: FrameType | None) -> None:
        if self._guards.interrupts.runs_code:
            self.handler(number, frame)
        else:
            self._guards.call_between_cells(partial(self.handler, number, frame))


class Guards:
    """Puts a guard before each handler that is set from `install` on; user code sees its own handlers only."""

    def __init__(self, interrupts: Interrupts, show: Callable[[], object]) -> None:
        self.interrupts = interrupts
        self._show = show
        self._showing = False

    def install(self) -> None:
        """Replace `signal.signal` and `signal.getsignal`. Handlers set before, the worker's own, are not guarded."""
        set_handler, get_handler = signal.signal, signal.getsignal
        own = (self.interrupts.on_interrupt, self.interrupts.on_sigint)

        @wraps(set_handler)
        def set_guarded(signalnum: Any, handler: Any) -> Any:
            if callable(handler) and not isinstance(handler, signal.Handlers) and handler not in own:
                handler = Guard(handler, self)
            return _plain(set_handler(signalnum, handler))

        @wraps(get_handler)
        def get_plain(signalnum: Any) -> Any:
            return _plain(get_handler(signalnum))

        setattr(signal, "signal", set_guarded)  # noqa: B010  # as in loops: a function of a module
        setattr(signal, "getsignal", get_plain)  # noqa: B010

    def call_between_cells(self, handler: Callable[[], object]) -> None:
        """Call a handler; what it raises is shown, but not while another error is being shown (signals can be fast)."""
        try:
            handler()
        except Exception:  # noqa: BLE001  # no cell is there that it could end
            if not self._showing:
                self._showing = True
                try:
                    self._show()
                finally:
                    self._showing = False


def _plain(handler: Any) -> Any:
    return handler.handler if isinstance(handler, Guard) else handler
