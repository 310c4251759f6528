"""`capsule run --progress`: below the output, how long the code has run; at the end, how long it took."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Self

from capsule.cli.show import ERASE_LINE, Screen
from capsule.client.progress import TICK, describe
from capsule.events import Event, Finished, InputRequest, Progress

if TYPE_CHECKING:
    from types import TracebackType

    from capsule.cli.sink import Sink
    from capsule_protocol.errors import CapsuleError


class Elapsed:
    """A screen with a status on the last line of the terminal; on a pipe there is only the line at the end."""

    def __init__(self, screen: Screen, out: Sink, err: Sink) -> None:
        self._screen = screen
        self._out = out
        self._err = err
        self._lock = asyncio.Lock()
        self._began = 0.0
        self._step = ""
        self._shown = self._waits = False
        self._verdict = "ended"
        self._clock: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._began = time.monotonic()
        if self._err.terminal:
            self._clock = asyncio.create_task(self._tick())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._clock is not None:
            self._clock.cancel()
            await asyncio.wait([self._clock])
        if kind is None or issubclass(kind, asyncio.CancelledError):
            await self._erase()
            await self._screen.tell(f"{self._verdict} after {self._elapsed()}")

    async def show(self, event: Event) -> None:
        """Show one event where the status was."""
        async with self._lock:
            self._waits = self._waits and isinstance(event, InputRequest)  # it may come behind its prompt
            await self._erase()
            if isinstance(event, Progress):
                self._step = describe(event)
                return
            if isinstance(event, Finished):
                self._verdict = event.verdict
            await self._screen.show(event)

    async def cell(self, number: int, source: str) -> None:
        """The cell of this number is about to run."""
        async with self._lock:
            await self._erase()
            self._step = f"cell {number}"
            await self._screen.cell(number, source)

    async def note(self, markdown: str) -> None:
        """A notebook's markdown cell."""
        async with self._lock:
            await self._erase()
            await self._screen.note(markdown)

    async def fail(self, error: CapsuleError) -> None:
        """An error that is not the code's own."""
        async with self._lock:
            await self._erase()
            await self._screen.fail(error)

    async def prompt(self, request: InputRequest) -> None:
        """A question; no status until it has its answer, which is typed there."""
        async with self._lock:
            await self._erase()
            self._waits = True
            await self._screen.prompt(request)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK)
            async with self._lock:
                fresh = self._shown or (self._out.at_line_start and self._err.at_line_start)
                if fresh and not self._waits:
                    await self._err.write(f"{ERASE_LINE}{self._elapsed()} {self._step}".rstrip())
                    self._shown = True

    async def _erase(self) -> None:
        if self._shown:
            await self._err.write(ERASE_LINE)
            self._err.at_line_start = True
            self._shown = False

    def _elapsed(self) -> str:
        return f"{time.monotonic() - self._began:.1f} s"
