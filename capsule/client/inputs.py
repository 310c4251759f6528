"""How the questions of running code (`input()`, `getpass()`) get their answers."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from capsule.events import InputRequest
from capsule_protocol.errors import ArgumentError

if TYPE_CHECKING:
    from capsule.client.inner import AnyExecution

OnInput = Callable[[InputRequest], Awaitable[str] | str]
"""Answers `input()` of the code with a line of text; what it raises is EOFError to the code, and reaches the caller.

EOFError says that there is no more input, and does not reach the caller.
A coroutine function is awaited while events go on, and cancelled at the verdict; a plain one holds up the event loop.
"""


def check_answer(answer: object) -> str:
    """The answer of `on_input`, if it is text that can be sent."""
    if not isinstance(answer, str):
        raise ArgumentError("on_input", f"returned {type(answer).__name__}", allowed="a str, or raising an exception")
    try:
        answer.encode()
    except UnicodeEncodeError as error:
        raise ArgumentError("on_input", "returned a lone surrogate", allowed="text that UTF-8 can encode") from error
    return answer


def reply(inner: AnyExecution, request: InputRequest, answer: str | None) -> None:
    """Hand the answer to the code (None: EOFError); one that comes after the time-out or the verdict is dropped."""
    with contextlib.suppress(ArgumentError):
        inner.reply_input(request.request, answer, "eof" if answer is None else None)


class Answers:
    """Asks `on_input` for one execution. `failure` is what it raised, for the caller to see after the verdict."""

    __slots__ = ("_inner", "_on_input", "_tasks", "failure")

    def __init__(self, inner: AnyExecution, on_input: OnInput) -> None:
        self.failure: Exception | None = None
        self._inner = inner
        self._on_input = on_input
        self._tasks: set[asyncio.Task[None]] = set()

    def ask(self, request: InputRequest) -> None:
        """Call `on_input`; an awaitable answer is awaited while events go on."""
        try:
            answer = self._on_input(request)
            if isinstance(answer, str) or not inspect.isawaitable(answer):
                reply(self._inner, request, check_answer(answer))
                return
        except Exception as error:  # noqa: BLE001 - kept, and raised to the caller after the verdict
            self._fail(request, error)
            return
        task = asyncio.ensure_future(self._answer_later(request, answer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def cancel(self) -> None:
        """The code waits no longer: end the questions that are still open."""
        for task in self._tasks:
            task.cancel()

    async def _answer_later(self, request: InputRequest, answer: Awaitable[str]) -> None:
        try:
            reply(self._inner, request, check_answer(await answer))
        except Exception as error:  # noqa: BLE001 - kept, and raised to the caller after the verdict
            self._fail(request, error)

    def _fail(self, request: InputRequest, error: Exception) -> None:
        if not isinstance(error, EOFError):  # that only says that there is no more input
            self.failure = self.failure or error
        reply(self._inner, request, None)
