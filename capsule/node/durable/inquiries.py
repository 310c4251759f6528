"""The questions of running code as promises: the first answer counts, and is committed before the code hears it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from msgpack import packb, unpackb

from capsule.node.asking import Answer
from capsule.node.durable.patience import until_committed
from capsule_bridge import NewPromise, Settlement, fingerprint, promise_id
from capsule_protocol.errors import CapsuleError
from capsule_protocol.ids import MESSAGE, new_id

if TYPE_CHECKING:
    from capsule.node.asking import Question
    from capsule.node.execution import Execution
    from capsule.node.tasks import Tasks
    from capsule_bridge import Action, Bridge, Promise, Settled

logger = logging.getLogger("capsule.bridge")


class Inquiries:
    """Those of all executions of a front."""

    def __init__(self, bridge: Bridge, tasks: Tasks) -> None:
        self.bridge = bridge
        self.tasks = tasks
        self._secrets: dict[str, dict[str, Answer]] = {}  # passwords on their way to the code, by promise and mark

    def clerk(self, session: str, owner: str) -> Inquirer:
        """Who sees to the questions of one execution of this session."""
        return Inquirer(self, session, owner)

    async def settle(self, promise: str, answer: Answer) -> Settled:
        """Give an answer; `decided`: it is the one that counts. Raises SessionError `promise_unknown`, StoreError."""
        found = await self.bridge.get(promise)
        secret = answer.value is not None and found.pending and unpack_question(found)["password"]
        mark = self._withhold(promise, answer) if secret else ""
        body = {"withheld": mark} if secret else answer._asdict()
        (settled,) = await self.bridge.settle(Settlement(promise, _action(answer), packb(body)))
        if secret and not settled.decided:
            self._secrets.get(promise, {}).pop(mark, None)
        return settled

    def heard(self, promise: Promise) -> Answer:
        """What a settled promise says to the code."""
        secrets = self._secrets.pop(promise.id, {})
        if promise.state == "rejected_timedout":
            return Answer(None, "timeout")
        if not promise.value:  # its execution has ended
            return Answer(None, "canceled")
        body = unpackb(promise.value)
        if "withheld" not in body:
            return Answer(**body)
        answer = secrets.get(body["withheld"])
        return Answer(None, "canceled", "the answer was not kept") if answer is None else answer

    def _withhold(self, promise: str, answer: Answer) -> str:
        """Have an answer in memory only; the mark is written down in its place."""
        mark = new_id(MESSAGE)
        self._secrets.setdefault(promise, {})[mark] = answer
        return mark


class Inquirer:
    """The clerk of one execution."""

    def __init__(self, inquiries: Inquiries, session: str, owner: str) -> None:
        self._inquiries = inquiries
        self._session = session
        self._owner = owner
        self._promises: dict[str, str] = {}  # of the open questions, by request
        self._asked = 0

    def ask(self, execution: Execution, question: Question) -> None:
        """As `Clerk.ask`."""
        self._asked += 1
        self._promises[question.request] = promise_id(execution.id, "input", self._asked)
        self._inquiries.tasks.start(self._see_to(execution, question, self._promises[question.request]))

    def reply(self, execution: Execution, request: str, answer: Answer) -> None:  # noqa: ARG002  `Clerk`'s
        """As `Clerk.reply`."""
        if request in self._promises:
            self._inquiries.tasks.start(self._reply(self._promises[request], answer))

    async def _see_to(self, execution: Execution, question: Question, id_: str) -> None:
        bridge, timeout = self._inquiries.bridge, execution.session.options.input_timeout
        asked = bridge.now()
        new = NewPromise(
            id=id_,
            kind="input",
            session=self._session,
            fingerprint=fingerprint("input", question.prompt, {"request": question.request}),
            param=pack_question(question),
            principal=self._owner,
            parent=promise_id(execution.id),
            timeout_at=None if timeout is None else asked + round(timeout * 1000),
        )
        try:
            await until_committed(id_, lambda: bridge.accept(new))
            execution.tell_question(question, id_)
            promise = await until_committed(id_, lambda: bridge.wait(id_))
        except CapsuleError as error:  # its execution has ended, or the store was closed
            logger.debug("%s has no answer: %s", id_, error)
            answer = Answer(None, "canceled")
        else:
            answer = self._inquiries.heard(promise)
        self._promises.pop(question.request, None)
        execution.deliver(question.request, answer)

    async def _reply(self, id_: str, answer: Answer) -> None:
        try:
            await until_committed(id_, lambda: self._inquiries.settle(id_, answer))
        except CapsuleError as error:  # not made yet, so nobody can have been asked; or forgotten
            logger.warning("an answer to %s does not count: %s", id_, error)


def pack_question(question: Question) -> bytes:
    """What was asked, as a promise has it."""
    packed: bytes = packb(question._asdict(), unicode_errors="backslashreplace")
    return packed


def unpack_question(promise: Promise) -> dict[str, Any]:
    """What was asked."""
    question: dict[str, Any] = unpackb(promise.param)
    return question


def _action(answer: Answer) -> Action:
    if answer.error is None:
        return "resolve"
    return "cancel" if answer.error == "canceled" else "reject"
