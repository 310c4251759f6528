"""What the code of one execution has asked of people and waits for, and its time, which does not count meanwhile."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from capsule.node.asking import Answer, Question
from capsule.node.clock import Clock
from capsule_protocol.errors import ArgumentError, SessionError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator

    from capsule.node.asking import Clerk, OnRefused
    from capsule.node.clock import Reading
    from capsule.node.execution import Execution

MAX_QUESTIONS = 256
"""Requests for input of one execution that may be open at once: each is a thread that waits."""


class _Open(NamedTuple):
    """A question that waits for its answer, and what ends it if none comes; a clerk looks at the time itself."""

    question: Question
    timer: asyncio.TimerHandle | None
    told: bool
    """Whether the client knows of it, or its event waits to be taken: a clerk makes a promise first."""


class Inputs:
    """The open questions, by the worker's request, and the clock of a time-out, if there is one.

    Without a clerk, the first answer that the question allows is delivered.
    """

    __slots__ = ("_clerk", "_clock", "_execution", "_loop", "_open", "_standing")

    def __init__(self, execution: Execution, loop: asyncio.AbstractEventLoop) -> None:
        self._execution = execution
        self._loop = loop
        self._open: dict[str, _Open] = {}
        self._clerk: Clerk | None = None
        self._clock: Clock | None = None
        self._standing: list[Callable[[], float]] = []

    @property
    def told(self) -> bool:
        """Whether the client knows of all of them, or only has to take their events."""
        return all(one.told for one in self._open.values())

    @property
    def full(self) -> bool:
        """Whether no more questions may be open."""
        return len(self._open) >= MAX_QUESTIONS

    def waits_for(self, request: str) -> bool:
        """Whether the code waits for an answer to this request."""
        return request in self._open

    def consult(self, clerk: Clerk) -> None:
        """From now on this one sees to the questions, the open ones too."""
        self._clerk = clerk
        for question, timer, told in list(self._open.values()):
            if timer is not None:
                timer.cancel()
            self._open[question.request] = _Open(question, None, told)
            clerk.ask(self._execution, question, told=True)

    def ask(self, question: Question, *, told: bool) -> None:
        """The code waits for an answer. `told`: the client knows of it already."""
        request = question.request
        if self._clerk is not None:
            self._open[request] = _Open(question, None, told)
            self._count_time()
            self._clerk.ask(self._execution, question, told=told)
        else:
            self._open[request] = _Open(question, self._timer(question), told)
            self._count_time()
            if not told:
                self._execution.tell_question(question)

    def expect(self, request: str, *, waits: bool = True) -> None:
        """The code, or a thread of it, waits for a line of text, which another node has told."""
        if request not in self._open:
            self.ask(Question(request, "", waits=waits), told=True)

    def tell(self, request: str) -> bool:
        """The client is being told; False if the code waits no more."""
        if request not in self._open:
            return False
        self._open[request] = self._open[request]._replace(told=True)
        return True

    def reply(self, request: str, answer: Answer, on_refused: OnRefused) -> None:
        """The client answers. Raises ArgumentError if nobody waits for that; what is refused is told."""
        if request not in self._open:
            raise ArgumentError("request_id", f"no input is waited for under {request!r}", allowed=[*self._open])
        if self._clerk is not None:
            self._clerk.reply(self._execution, request, answer, on_refused)
            return
        try:
            self._open[request].question.check(answer)
        except SessionError as refused:
            on_refused(refused)
        else:
            self.deliver(request, answer)

    def deliver(self, request: str, answer: Answer) -> None:
        """The code hears this, if it still waits."""
        if self._close(request):
            self._execution.session.send_input(request, answer)
            self._count_time()

    def withdraw(self, request: str) -> None:
        """Whoever asked does not wait any more."""
        if self._close(request):
            self._count_time()

    def limit(self, seconds: float, expire: Callable[[], object], note: Callable[[Reading], object]) -> None:
        """Call this after so many seconds, not counting those in which the code waits for an answer.

        `note`: as of `Clock`.
        """
        if self._clock is not None:
            self._clock.cancel()
        self._clock = Clock(self._loop, seconds, expire, note)
        self._count_time()

    @contextmanager
    def standing(self, used: Callable[[], float]) -> Iterator[None]:
        """A call of the code depends on people: its time does not count meanwhile, but while it computes.

        Nobody but the code itself knows whether it waits for its call. `used`: the seconds that it has computed so far.
        """
        self._standing.append(used)
        self._count_time()
        try:
            yield
        finally:
            self._standing.remove(used)
            self._count_time()

    def end(self) -> None:
        """The code has ended; a thread of it may still wait for its line."""
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None
        for request in list(self._open):
            self.deliver(request, Answer(None, "eof"))

    # --- inside ---

    def _close(self, request: str) -> bool:
        """Whether it was open."""
        if request not in self._open:
            return False
        timer = self._open.pop(request).timer
        if timer is not None:
            timer.cancel()
        return True

    def _timer(self, question: Question) -> asyncio.TimerHandle | None:
        timeout, late = question.patience(self._execution.session.options.input_timeout), Answer(None, "timeout")
        return None if timeout is None else self._loop.call_later(timeout, self.deliver, question.request, late)

    def _count_time(self) -> None:
        """Not while the code itself waits for people, and not only threads of it."""
        if self._clock is None:
            return
        if any(one.question.waits for one in self._open.values()):
            self._clock.pause()
        elif self._standing:
            self._clock.attend(self._standing[0])
        else:
            self._clock.go_on()
