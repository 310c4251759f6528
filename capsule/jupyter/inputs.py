"""The stdin channel of a kernel: what code asks its user, and the answers."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from capsule.text import question as question_text
from capsule_protocol.answers import json_text
from capsule_protocol.errors import ArgumentError, SessionError

if TYPE_CHECKING:
    from capsule.events import InputRequest
    from capsule.jupyter.inner import AnyExecution
    from capsule.jupyter.messages import Message
    from capsule.jupyter.shell import Request
    from capsule.jupyter.sockets import Sockets

logger = logging.getLogger("capsule.jupyter")


class _Open(NamedTuple):
    """A question that waits for its answer."""

    execution: AnyExecution
    event: InputRequest
    asked: Request


class Inputs:
    """The questions of a kernel, the oldest first: front ends do not say which one they answer."""

    def __init__(self) -> None:
        self.sockets: Sockets | None = None
        self._open: list[_Open] = []

    def ask(self, execution: AnyExecution, event: InputRequest, request: Request) -> None:
        """Ask the front end whose code it is; what the question allows stands in its prompt."""
        assert self.sockets is not None
        self._open.append(_Open(execution, event, request))
        content = {"prompt": question_text(event), "password": event.password}
        self.sockets.reply("stdin", "input_request", content, request.message["header"], request.to)

    def forget(self, execution: AnyExecution) -> None:
        """It waits for nothing any more."""
        self._open = [question for question in self._open if question.execution is not execution]

    def take(self, to: list[bytes], message: Message) -> None:
        """An answer; one that nobody has asked for is dropped."""
        value = message["content"].get("value")
        for question in self._open:
            if question.asked.to[0] == to[0] and isinstance(value, str):
                self._open.remove(question)
                try:
                    question.execution.reply_input(question.event.request, _meant(question.event, value))
                except ArgumentError:  # it was interrupted while the answer was on its way
                    continue
                except SessionError as error:
                    self.ask(question.execution, replace(question.event, refused=error.message), question.asked)
                return
        logger.info("an answer on stdin was not taken: nobody waits for one, or it is no text")


def _meant(event: InputRequest, line: str) -> str:
    """What is sent of a line. Raises SessionError `answer_refused` if the question does not allow what it means."""
    return json_text(event.terms.understand(line)) if event.terms.typed else line
