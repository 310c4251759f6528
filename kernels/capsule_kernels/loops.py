"""Event loops in a session: one of its own for awaited cells and their tasks, and `asyncio.run` beside it.

During a synchronous cell the session's loop counts as the thread's running loop, so that `asyncio.create_task` works;
it does not really run. Whatever starts another loop takes it off the thread meanwhile and puts it back.
"""

from __future__ import annotations

import asyncio
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
    _csock: socket.socket  # asyncio's own: what is written to it ends a wait

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
        """Run tasks until the descriptor can be read; a task's SystemExit or KeyboardInterrupt ends only the task."""
        self.add_reader(descriptor, self.stop)
        try:
            self.run_forever()
        except (KeyboardInterrupt, SystemExit):
            return
        finally:
            self.remove_reader(descriptor)

    def run_once(self) -> None:
        """Give every task that is ready one step."""
        self.call_soon(self.stop)
        try:
            self.run_forever()
        except (KeyboardInterrupt, SystemExit):
            return


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
