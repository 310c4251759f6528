"""The stdin channel of a kernel: what code asks its user, and the answers."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple

from capsule_protocol.errors import ArgumentError

if TYPE_CHECKING:
    from capsule.client.inner import AnyExecution
    from capsule.events import InputRequest
    from capsule.jupyter.shell import Request
    from capsule.jupyter.sockets import Message, Sockets

logger = logging.getLogger("capsule.jupyter")


class _Open(NamedTuple):
    """A question that waits for its answer."""

    execution: AnyExecution
    request: str
    to: bytes


class Inputs:
    """The questions of a kernel, the oldest first: front ends do not say which one they answer."""

    def __init__(self) -> None:
        self.sockets: Sockets | None = None
        self._open: list[_Open] = []

    def ask(self, execution: AnyExecution, event: InputRequest, request: Request) -> None:
        """Ask the front end whose code it is."""
        assert self.sockets is not None
        self._open.append(_Open(execution, event.request, request.to[0]))
        content = {"prompt": event.prompt, "password": event.password}
        self.sockets.reply("stdin", "input_request", content, request.message["header"], request.to)

    def forget(self, execution: AnyExecution) -> None:
        """It waits for nothing any more."""
        self._open = [question for question in self._open if question.execution is not execution]

    def take(self, to: list[bytes], message: Message) -> None:
        """An answer; one that nobody has asked for is dropped."""
        value = message["content"].get("value")
        for question in self._open:
            if question.to == to[0] and isinstance(value, str):
                self._open.remove(question)
                try:
                    question.execution.reply_input(question.request, value)
                except ArgumentError:  # it was interrupted while the answer was on its way
                    continue
                return
        logger.info("an answer on stdin was not taken: nobody waits for one, or it is no text")
