"""Reading our stdin line by line without blocking the event loop: what answers `input()` in the code."""

from __future__ import annotations

import asyncio
import contextlib
import os
import termios
from dataclasses import replace
from typing import TYPE_CHECKING

from capsule_protocol.errors import SessionError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from capsule.client.inputs import Json
    from capsule.events import InputRequest


class Stdin:
    """The lines of a descriptor. A wait for one can be cancelled and loses nothing. `prompt` shows a question."""

    def __init__(self, prompt: Callable[[InputRequest], Awaitable[None]], descriptor: int = 0) -> None:
        self.descriptor = descriptor
        self._prompt = prompt
        self.terminal = os.isatty(descriptor)
        self._held = bytearray()
        self._ended = False

    async def line(self) -> str | None:
        """The next line without its end; None at the end of the input. On a terminal, Ctrl-D ends one request only."""
        while (end := self._held.find(b"\n")) < 0 and not self._ended:
            await self._readable()
            data = os.read(self.descriptor, 65536)
            if not data:
                self._ended = True
            self._held += data
        if end < 0:
            end = len(self._held)
            self._ended = not self.terminal
            if not end:
                return None
        taken = bytes(self._held[:end])
        del self._held[: end + 1]
        return taken.removesuffix(b"\r").decode("utf-8", "replace")

    async def answer(self, request: InputRequest) -> Json:
        """What `on_input` wants: asked for until it is allowed. Raises EOFError at the end of the input."""
        while True:
            line = await self._ask(request)
            if not request.terms.typed:
                return line
            try:
                answer: Json = request.terms.understand(line)
            except SessionError as error:
                request = replace(request, refused=error.message)
            else:
                return answer

    async def _ask(self, request: InputRequest) -> str:
        # The echo goes before the question comes: an answer that is typed at once must not show.
        with self._silence() if request.password else contextlib.nullcontext():
            await self._prompt(request)
            line = await self.line()
        if line is None:
            raise EOFError
        return line

    @contextlib.contextmanager
    def _silence(self) -> Iterator[None]:
        if not self.terminal:
            yield
            return
        before = termios.tcgetattr(self.descriptor)
        silent = [*before]
        silent[3] = silent[3] & ~termios.ECHO | termios.ECHONL
        termios.tcsetattr(self.descriptor, termios.TCSAFLUSH, silent)
        try:
            yield
        finally:
            termios.tcsetattr(self.descriptor, termios.TCSADRAIN, before)

    async def _readable(self) -> None:
        loop = asyncio.get_running_loop()
        ready = loop.create_future()
        try:
            loop.add_reader(self.descriptor, _settle, ready)
        except PermissionError:  # a file, which epoll refuses: always readable
            return
        try:
            await ready
        finally:
            loop.remove_reader(self.descriptor)


def _settle(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
