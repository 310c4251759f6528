"""Event loops in a session: one of its own for awaited cells and their tasks, and `asyncio.run` beside it.

During a synchronous cell the session's loop counts as the thread's running loop, so that `asyncio.create_task` works;
it does not really run. Whatever starts another loop takes it off the thread meanwhile and puts it back.
"""

from __future__ import annotations

import asyncio
import os
import selectors
import signal
from asyncio import _get_running_loop, _set_running_loop
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator


class SessionLoop(asyncio.SelectorEventLoop):
    """The session's own event loop; `used` is false until a cell has touched it."""

    used = False
    _between_cells = False
    _selector: selectors.BaseSelector  # asyncio's own
    _csock: socket.socket  # asyncio's own: what is written to it ends a wait

    def __init__(self, *, opened: bool = True) -> None:
        """Not `opened`: it has no descriptors yet, and can be lent, but not run."""
        self._opened = opened
        super().__init__(None if opened else selectors.SelectSelector())

    def open(self) -> None:
        """Get descriptors. Raises OSError."""
        self._opened = True
        self._selector = selectors.DefaultSelector()
        self._make_self_pipe()

    def _make_self_pipe(self) -> None:
        if self._opened:
            super()._make_self_pipe()  # type: ignore[misc]  # asyncio's own

    def call_soon(self, *arguments: Any, **keywords: Any) -> asyncio.Handle:  # type: ignore[override]  # passed on
        """As in any loop."""
        self.used = True
        return super().call_soon(*arguments, **keywords)

    def call_soon_threadsafe(self, *arguments: Any, **keywords: Any) -> asyncio.Handle:  # type: ignore[override]
        """As in any loop."""
        self.used = True
        return super().call_soon_threadsafe(*arguments, **keywords)

    def call_at(self, *arguments: Any, **keywords: Any) -> asyncio.TimerHandle:  # type: ignore[override]  # passed on
        """As in any loop."""
        self.used = True
        return super().call_at(*arguments, **keywords)

    def add_reader(self, *arguments: Any) -> None:  # type: ignore[override]  # passed on
        """As in any loop."""
        self.used = True
        super().add_reader(*arguments)

    def add_writer(self, *arguments: Any) -> None:  # type: ignore[override]  # passed on
        """As in any loop."""
        self.used = True
        super().add_writer(*arguments)

    def close(self) -> None:
        """Nothing: the loop is the session's. Scripts close what `asyncio.get_event_loop` gave them at their end."""

    def wake_on_signals(self) -> None:
        """Have a signal end the loop's wait also when it comes in the moment before, where Python does not look."""
        signal.set_wakeup_fd(self._csock.fileno(), warn_on_full_buffer=False)

    @contextmanager
    def lent(self) -> Iterator[None]:
        """The calling code finds this loop as the running one."""
        _set_running_loop(self)
        try:
            yield
        finally:
            _set_running_loop(None)

    def run_until_readable(self, descriptor: int) -> None:
        """Run tasks until the descriptor can be read, or one of them raises SystemExit or KeyboardInterrupt."""
        self.add_reader(descriptor, self.stop)
        self._run_between_cells()
        self.remove_reader(descriptor)

    def run_once(self) -> None:
        """Give every task that is ready one step."""
        self.call_soon(self.stop)
        self._run_between_cells()

    def forked(self) -> None:
        """This process is a child that user code has just made: if a task between cells did, its step is the last."""
        if self._between_cells:
            self.stop()

    def _run_between_cells(self) -> None:
        """A task's SystemExit or KeyboardInterrupt ends only the task; a child that a task has forked ends here.

        It would take messages that are its parent's, and what it said to the selector would be said for both.
        """
        pid, status = os.getpid(), 0
        self._between_cells = True
        try:
            self.run_forever()
        except (KeyboardInterrupt, SystemExit):
            status = 1
        finally:
            self._between_cells = False
            if os.getpid() != pid:
                os._exit(status)


def allow_nested_runs() -> None:
    """Let `asyncio.run`, `Runner.run` and `run_until_complete` of another loop work in a cell. Call it once."""
    for holder, name in (
        (asyncio, "run"),
        (asyncio.Runner, "run"),
        (asyncio.BaseEventLoop, "run_until_complete"),
        (asyncio.BaseEventLoop, "run_forever"),
    ):
        setattr(holder, name, _beside(getattr(holder, name)))


def _beside(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, with the session's loop off the thread while it runs."""

    @wraps(function)
    def call(*arguments: Any, **keywords: Any) -> Any:
        running = _get_running_loop()
        if not isinstance(running, SessionLoop):
            return function(*arguments, **keywords)
        _set_running_loop(None)
        try:
            return function(*arguments, **keywords)
        finally:
            _set_running_loop(running)

    return call
