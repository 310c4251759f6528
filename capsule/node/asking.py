"""What code asks of people while it runs, and what it hears."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from capsule_protocol.answers import Terms
from capsule_protocol.errors import SessionError

if TYPE_CHECKING:
    from capsule.node.execution import Execution

InputError = Literal["eof", "timeout", "canceled"]
"""Why there is no answer: none will come, none came in time, or the question was taken back."""


CALL = "call:"
"""So begin the requests of questions that calls of capabilities ask, while which the time of their execution stands."""

OnRefused = Callable[[SessionError], object]
"""Is told why an answer does not count."""


def raise_error(error: SessionError) -> None:
    """For whoever wants that raised."""
    raise error


class Question(NamedTuple):
    """What the worker's request `request` asks for: a line of text, or what its terms allow, for `timeout` seconds.

    Unless the code `waits`, one of its threads asks while it goes on.
    """

    request: str
    prompt: str
    password: bool = False
    choices: list[Any] | None = None
    schema: dict[str, Any] | None = None
    timeout: float | None = None
    waits: bool = True

    @property
    def terms(self) -> Terms:
        """What is allowed as its answer."""
        return Terms(self.choices, self.schema)

    def check(self, answer: Answer) -> None:
        """Look whether it is allowed. Raises SessionError `answer_refused`."""
        if answer.value is not None and self.terms.typed:
            self.terms.read(answer.value)

    def patience(self, limit: float | None) -> float | None:
        """For how many seconds it is open, where the session has this limit; None: for ever."""
        return min((seconds for seconds in (self.timeout, limit) if seconds is not None), default=None)


class Answer(NamedTuple):
    """A line, or the JSON text of what terms allow; or why there is none, and what is to be said of that."""

    value: str | None
    error: InputError | None = None
    message: str = ""


class Clerk(Protocol):
    """Who sees to the questions of one execution: tells the client, and has the first answer delivered."""

    def ask(self, execution: Execution, question: Question, *, told: bool) -> None:
        """Do so from now on, by `tell_question`, unless the client was `told` already, and `inputs.deliver`."""

    def reply(self, execution: Execution, request: str, answer: Answer, on_refused: OnRefused) -> None:
        """The execution's client answers; called back if the question does not allow that, and stays open."""
