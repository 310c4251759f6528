"""How the questions of running code (`input()`, `getpass()`, `capsule_ask()`) get their answers."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from capsule.events import InputRequest
from capsule_protocol.errors import ArgumentError, SessionError

if TYPE_CHECKING:
    from capsule.client.inner import AnyExecution

Json: TypeAlias = str | int | float | bool | Sequence[Any] | Mapping[str, Any]
"""What JSON can say; None as well, but a callback that says it answers None has rather forgotten its answer."""
OnInput = Callable[[InputRequest], Awaitable[Json] | Json]
"""Answers a question of the code: with a line of text, or with a value that its `choices` or `schema` allow.

For another value it is called again with the reason in `request.refused`, `TRIES` times in all; then that is raised.
What it raises is EOFError to the code, and reaches the caller; but EOFError, which says that there is no more input.
A coroutine function is awaited while events go on, and cancelled at the verdict; a plain one holds up the event loop.
"""

TRIES = 3
"""Answers that are not allowed, to one question: a callback that does not look at `refused` would go on for ever."""


def text_of(request: InputRequest, answer: object) -> str:
    """What `on_input` answers, as it is sent.

    Raises ArgumentError for what cannot be, and SessionError `answer_refused` for what the question does not allow.
    """
    if request.terms.typed:
        return request.terms.write(answer)
    if not isinstance(answer, str):
        raise ArgumentError("on_input", f"returned {type(answer).__name__}", allowed="a str, or raising an exception")
    try:
        answer.encode()
    except UnicodeEncodeError as error:
        raise ArgumentError("on_input", "returned a lone surrogate", allowed="text that UTF-8 can encode") from error
    return answer


def reply(inner: AnyExecution, request: InputRequest, answer: str | None) -> None:
    """Hand the answer to the code (None: EOFError); one that comes after the time-out or the verdict is dropped.

    Raises SessionError `answer_refused` for JSON that the question does not allow.
    """
    if answer is not None and request.terms.typed:
        request.terms.read(answer)
    with contextlib.suppress(ArgumentError):
        inner.reply_input(request.request, answer, "eof" if answer is None else None)


class Answers:
    """Asks `on_input` for one execution. `failure` is what it raised, for the caller to see after the verdict."""

    __slots__ = ("_inner", "_on_input", "_tasks", "failure")

    def __init__(self, inner: AnyExecution, on_input: OnInput) -> None:
        self.failure: Exception | None = None
        self._inner = inner
        self._on_input = on_input
        self._tasks: set[asyncio.Future[Json]] = set()

    def ask(self, request: InputRequest, tries: int = TRIES) -> None:
        """Call `on_input`; an awaitable answer is awaited while events go on."""
        try:
            answer = self._on_input(request)
            if isinstance(answer, str) or not inspect.isawaitable(answer):
                self._give(request, answer, tries)
                return
            # Within another task it would never be awaited, if that is cancelled before its first step.
            task = asyncio.ensure_future(answer, loop=asyncio.get_running_loop())
        except Exception as error:  # noqa: BLE001 - kept, and raised to the caller after the verdict
            self._fail(request, error)
            return
        self._tasks.add(task)
        task.add_done_callback(partial(self._answered, request, tries))

    def cancel(self) -> None:
        """The code waits no longer: end the questions that are still open."""
        for task in self._tasks:
            task.cancel()

    def _give(self, request: InputRequest, answer: object, tries: int) -> None:
        try:
            text = text_of(request, answer)
        except SessionError as error:
            if tries == 1:
                raise
            self.ask(replace(request, refused=error.message), tries - 1)
        else:
            reply(self._inner, request, text)

    def _answered(self, request: InputRequest, tries: int, task: asyncio.Future[Json]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        try:
            self._give(request, task.result(), tries)
        except Exception as error:  # noqa: BLE001 - kept, and raised to the caller after the verdict
            self._fail(request, error)

    def _fail(self, request: InputRequest, error: Exception) -> None:
        if not isinstance(error, EOFError):  # that only says that there is no more input
            self.failure = self.failure or error
        reply(self._inner, request, None)
