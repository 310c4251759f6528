"""What code asks of people while it runs, and what it hears."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

if TYPE_CHECKING:
    from capsule.node.execution import Execution

InputError = Literal["eof", "timeout", "canceled"]
"""Why there is no answer: none will come, none came in time, or the question was taken back."""


class Question(NamedTuple):
    """What the worker's request `request` asks for: a line of text."""

    request: str
    prompt: str
    password: bool = False


class Answer(NamedTuple):
    """A line, or why there is none, and what is to be said of that."""

    value: str | None
    error: InputError | None = None
    message: str = ""


class Clerk(Protocol):
    """Who sees to the questions of one execution: tells the client, and has the first answer delivered."""

    def ask(self, execution: Execution, question: Question, *, told: bool) -> None:
        """Do so from now on, by `tell_question`, unless the client was `told` already, and `deliver`."""

    def reply(self, execution: Execution, request: str, answer: Answer) -> None:
        """The execution's client answers."""
