"""Ctrl-C: the first one interrupts the code, a second one ends the program."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from typing import TYPE_CHECKING

from capsule_protocol.errors import CapsuleError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType
    from typing import Self

    from capsule.client.session import AsyncSession


class Interrupts:
    """What SIGINT does while `armed`. Enter it in the task that a second press shall end by cancelling it.

    `session` is what the first press interrupts; without one, or where nothing runs, it ends the program too. With
    `patient`, as in a console, presses only ever interrupt.
    """

    def __init__(self, *, patient: bool = False) -> None:
        self.session: AsyncSession | None = None
        self.pressed = 0
        self.quit = False
        self._patient = patient
        self._program: asyncio.Task[object] | None = None
        self._request: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._program = asyncio.current_task()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._request is not None:
            self._request.cancel()
            await asyncio.wait([self._request])

    @contextlib.contextmanager
    def armed(self) -> Iterator[None]:
        """Take SIGINT over, unless whoever started us wants it ignored."""
        if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
            yield
            return
        loop = asyncio.get_running_loop()
        self.pressed = 0
        loop.add_signal_handler(signal.SIGINT, self._press)
        try:
            yield
        finally:
            loop.remove_signal_handler(signal.SIGINT)

    def _press(self) -> None:
        self.pressed += 1
        if self.session is None or (self.pressed > 1 and not self._patient):
            self._end()
        elif self._request is None or self._request.done():
            self._request = asyncio.get_running_loop().create_task(self._interrupt(self.session))

    async def _interrupt(self, session: AsyncSession) -> None:
        # A session that is gone has nothing to interrupt; its last execution tells why.
        with contextlib.suppress(CapsuleError):
            if not await session.interrupt() and not self._patient:
                self._end()

    def _end(self) -> None:
        if self._program is None or self.quit:
            return
        self.quit = True
        # From now on a further press kills, should the closing hang.
        asyncio.get_running_loop().remove_signal_handler(signal.SIGINT)
        self._program.cancel()
