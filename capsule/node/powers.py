"""A session's side of the calls of capabilities: what its code calls, what that asks of people, whose time stands."""

from __future__ import annotations

import asyncio
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

from capsule.node.asking import Answer
from capsule.node.memory import computed
from capsule_protocol.errors import RemoteProtocolError

if TYPE_CHECKING:
    from collections.abc import Callable

    from capsule.broker.calls import SessionCalls
    from capsule.node.asking import Question
    from capsule.node.execution import Execution
    from capsule.node.lineup import Lineup
    from capsule.node.worker import Worker
    from capsule_protocol.envelope import Envelope


class Powers:
    """Those of one session; without `calls` its code has none."""

    def __init__(
        self,
        lineup: Lineup,
        send: Callable[[Envelope], None],
        calls: SessionCalls | None,
        note: Callable[[str], object] = lambda _principal: None,
    ) -> None:
        """`note`: writes a submitter down for the next node, or raises."""
        self._lineup = lineup
        self._send = send
        self._calls = calls
        self._note = note
        self._asked: dict[str, asyncio.Future[Answer]] = {}
        self._pid = 0

    @property
    def any(self) -> bool:
        """Whether there may be calls."""
        return self._calls is not None

    def begin(self, worker: Worker, epoch: int) -> None:
        """From now on this worker calls, in this epoch of the session."""
        self._pid = worker.pid
        if self._calls is not None:
            self._calls.begin(worker.pid, str(worker.directory / "files"), epoch)

    def submitted(self, principal: str) -> None:
        """This principal is about to have code run in the worker; "": the owner of the session.

        Raises StoreError `store_unavailable` if that cannot be written down; then it must not.
        """
        self._note(principal)
        if self._calls is not None:
            self._calls.submitted(principal)

    async def end(self) -> None:
        """The worker is gone, and nobody waits for its calls. Idempotent."""
        if self._calls is not None:
            await self._calls.end()

    def hear(self, message: Any, envelope: Envelope) -> None:
        """The worker says something of a call. Raises RemoteProtocolError."""
        if self._calls is None:
            raise RemoteProtocolError("unexpected_message", "no capability was offered to this worker")
        self._calls.hear(message, envelope, self)

    def send_call(self, envelope: Envelope) -> None:
        """Tell the worker, if there is one."""
        self._send(envelope)

    def standing(self, execution: str) -> AbstractContextManager[None]:
        """While this lasts, the time of this execution does not count, if it runs."""
        found = self._lineup.sent(execution)
        return nullcontext() if found is None else self._standing(found)

    def _standing(self, execution: Execution) -> AbstractContextManager[None]:
        return execution.inputs.standing(partial(computed, self._pid, aside=bool(execution.request.subshell)))

    async def ask_people(self, execution: str, question: Question) -> Answer:
        """A call of this execution asks something; whoever answers the questions of its code answers it."""
        found = self._lineup.sent(execution)
        if found is None:
            return Answer(None, "eof", "the code that asks has ended")
        answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._asked[question.request] = answered
        try:
            with self._standing(found):
                found.ask_input(question._replace(waits=False))
                return await answered
        finally:
            del self._asked[question.request]
            found.inputs.withdraw(question.request)

    def answer(self, request: str, answer: Answer) -> bool:
        """Whether it is a call that has asked this, and hears it now."""
        asked = self._asked.get(request)
        if asked is not None and not asked.done():
            asked.set_result(answer)
        return asked is not None
