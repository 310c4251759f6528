"""An event loop on a thread of its own, for callers that have none."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar

from capsule_protocol.errors import SessionError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

T = TypeVar("T")
P = ParamSpec("P")


class Call(Generic[T]):
    """One piece of work for the loop's thread, and the wait for what came of it."""

    __slots__ = ("_done", "_error", "_loop", "_task", "_value", "_work")

    def __init__(self, loop: asyncio.AbstractEventLoop, work: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self._loop = loop
        self._work = work
        self._task: asyncio.Task[None] | None = None
        self._error: BaseException | None = None
        # A bare lock: acquiring it is the one wait in Python that signals interrupt and that costs next to nothing.
        self._done = threading.Lock()
        self._done.acquire()

    def start(self) -> None:
        """Begin, unless it has; on the loop's thread."""
        if self._task is None:
            self._task = self._loop.create_task(self._run())

    def cancel(self) -> None:
        """Cancel the work; on the loop's thread."""
        if self._task is not None:
            self._task.cancel()

    def wait(self) -> T:
        """Wait for the work and return or raise what it did. May be interrupted and called again."""
        with self._done:
            pass
        if isinstance(self._error, asyncio.CancelledError):
            raise SessionError("client_closed", "the client was closed meanwhile") from self._error
        if self._error is not None:
            raise self._error
        return self._value

    async def _run(self) -> None:
        try:
            self._value = await self._work()
        except BaseException as error:  # noqa: BLE001 - it is raised where the caller waits
            self._error = error
        finally:
            self._done.release()


class Portal:
    """Runs coroutines on its own event loop, for any thread. `cleanup` is the last thing that runs there."""

    def __init__(self, cleanup: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._cleanup = cleanup
        self._pid = os.getpid()
        # Reentrant, because finalizers and signal handlers come in between and make calls of their own.
        self._lock = threading.RLock()
        self._ended = False
        self._error: BaseException | None = None
        self._stopping = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        # A daemon, because the interpreter waits for other threads before it calls what ends this one.
        self._thread = threading.Thread(target=self._run, name="capsule-client", daemon=True)
        self._thread.start()

    def call(self, function: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `function` on the loop and wait. If the wait is interrupted (Ctrl-C) the work is cancelled.

        Raises what the function raises, and SessionError where no call can be made: after `stop()`, in a fork, and on
        the loop's own thread.
        """
        call = self.prepare(lambda: function(*args, **kwargs))
        try:
            self.start(call)
            return call.wait()
        except BaseException:
            self.soon(call.cancel)
            raise

    def prepare(self, work: Callable[[], Coroutine[Any, Any, T]]) -> Call[T]:
        """A call that has not begun."""
        return Call(self._loop, work)

    def start(self, call: Call[T]) -> None:
        """Begin a call; again: nothing, so that one whose start was interrupted can be started and waited for."""
        self.check()
        with self._lock:
            self._refuse_ended()
            self._loop.call_soon_threadsafe(call.start)

    def soon(self, function: Callable[..., object], *args: object) -> None:
        """Run a plain function on the loop, some time; after `stop()` or in a fork: never."""
        if os.getpid() == self._pid:
            with self._lock:
                if not self._ended:
                    self._loop.call_soon_threadsafe(function, *args)

    def check(self) -> None:
        """Raise SessionError where no call can be made."""
        if os.getpid() != self._pid:
            message = f"this client belongs to process {self._pid}, and this is a fork of it"
            raise SessionError("client_closed", message, hint="Create a client in the new process.")
        self._refuse_ended()
        if threading.get_ident() == self._thread.ident:
            message = "a callback on the client's own thread cannot wait for the client"
            raise SessionError("unsupported", message, hint="Hand the work to another thread.")

    def stop(self) -> None:
        """Run the cleanup, end the loop, join the thread; again: wait for the same. In a fork: nothing."""
        if os.getpid() != self._pid:
            return
        with self._lock:
            if not self._ended:
                self._ended = True
                self._loop.call_soon_threadsafe(self._stopping.set)
        if threading.get_ident() != self._thread.ident:
            self._thread.join()
            if self._error is not None:
                raise self._error

    def _refuse_ended(self) -> None:
        if self._ended:
            raise SessionError("client_closed", "the client is closed")

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._main())

    async def _main(self) -> None:
        await self._stopping.wait()
        try:
            await self._cleanup()
        except BaseException as error:  # noqa: BLE001 - `stop()` raises it
            self._error = error
