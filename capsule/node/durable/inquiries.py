"""The questions of running code as promises: the first answer counts, and is committed before the code hears it."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import TYPE_CHECKING, NamedTuple, get_args

from msgpack import packb, unpackb

from capsule.node.asking import Answer, InputError, Question
from capsule.node.durable.elsewhere import text_of, unpacked
from capsule.node.durable.patience import until_committed
from capsule_bridge import NewPromise, Settlement, fingerprint, promise_id
from capsule_bridge.rules import request_of
from capsule_bridge.states import CANCELED
from capsule_protocol.errors import CapsuleError, SessionError
from capsule_protocol.ids import MESSAGE, new_id

if TYPE_CHECKING:
    from capsule.node.asking import OnRefused
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

    def clerk(self, session: str, owner: str, *, inherited: bool = False) -> Inquirer:
        """Who sees to the questions of one execution of this session; `inherited`: an earlier node began it."""
        return Inquirer(self, session, owner, inherited=inherited)

    async def recall(self, execution: str) -> list[Promise | None]:
        """The promises of all that an execution has asked, in order; None for one that is forgotten.

        A time-out that is due and not written down is not told, so that nothing has to be written for this.
        """
        found: list[Promise | None] = []
        while True:
            try:
                found.append(await self.bridge.store.get(promise_id(execution, "input", len(found) + 1), now=0))
            except SessionError as error:
                if error.code != "promise_expired":
                    return found
                found.append(None)

    async def settle(self, promise: str, answer: Answer) -> Settled:
        """Give an answer; `decided`: it is the one that counts.

        Raises SessionError: `promise_unknown`, or `answer_refused` for one that the question does not allow, which is
        open then as before. Raises StoreError.
        """
        found = await self.bridge.get(promise)
        question = unpack_question(found)
        if found.pending:
            question.check(answer)
        secret = answer.value is not None and found.pending and question.password
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
        if not promise.value and promise.state == CANCELED:  # its execution has ended
            return Answer(None, "canceled")
        answer = written(promise)
        if isinstance(answer, Withheld):
            return secrets.get(answer.mark, Answer(None, "canceled", "the answer was not kept"))
        return _from_elsewhere(promise) if answer is None else answer

    def _withhold(self, promise: str, answer: Answer) -> str:
        """Have an answer in memory only; the mark is written down in its place."""
        mark = new_id(MESSAGE)
        self._secrets.setdefault(promise, {})[mark] = answer
        return mark


class Inquirer:
    """The clerk of one execution."""

    def __init__(self, inquiries: Inquiries, session: str, owner: str, *, inherited: bool) -> None:
        self._inquiries = inquiries
        self._session = session
        self._owner = owner
        self._promises: dict[str, str] = {}  # of the open questions, by request
        self._asked = 0
        self._inherited = inherited
        self._numbering = asyncio.Lock()

    def ask(self, execution: Execution, question: Question, *, told: bool) -> None:
        """As `Clerk.ask`."""
        self._inquiries.tasks.start(self._see_to(execution, question, told=told))

    def reply(self, execution: Execution, request: str, answer: Answer, on_refused: OnRefused) -> None:
        """As `Clerk.reply`."""
        self._inquiries.tasks.start(self._reply(execution, request, answer, on_refused))

    async def _see_to(self, execution: Execution, question: Question, *, told: bool) -> None:
        try:
            id_ = await self._number(execution.id, question.request)
            answer = await self._answer(execution, question, id_, told=told)
        except CapsuleError as error:  # the execution has ended, or the store was closed
            logger.debug("a question of %s has no answer: %s", execution.id, error)
            answer = Answer(None, "canceled")
        except Exception:  # a mistake of ours: the code must not wait for ever
            logger.exception("a question of %s has no answer", execution.id)
            answer = Answer(None, "canceled", "the node could not see to this question; see its log")
        self._promises.pop(question.request, None)
        execution.inputs.deliver(question.request, answer)

    async def _number(self, execution: str, request: str) -> str:
        """The id of a request's promise: of one that an earlier node made, or the next."""
        await self._recall(execution)
        if request not in self._promises:
            self._asked += 1
            self._promises[request] = promise_id(execution, "input", self._asked)
        return self._promises[request]

    async def _recall(self, execution: str) -> None:
        """Learn which promises an earlier node has made, before the first question is seen to."""
        async with self._numbering:
            if self._inherited:
                found = await until_committed(execution, lambda: self._inquiries.recall(execution))
                for promise in found:
                    if promise is not None:
                        self._promises[unpack_question(promise).request] = promise.id
                self._asked, self._inherited = len(found), False

    async def _answer(self, execution: Execution, question: Question, id_: str, *, told: bool) -> Answer:
        bridge, timeout = self._inquiries.bridge, question.patience(execution.session.options.input_timeout)
        asked = bridge.now()
        new = NewPromise(
            id=id_,
            kind="input",
            session=self._session,
            fingerprint=fingerprint("input", "", {"request": question.request}),
            param=pack_question(question),
            principal=self._owner,
            parent=promise_id(execution.id),
            timeout_at=None if timeout is None else asked + round(timeout * 1000),
        )
        await until_committed(id_, lambda: bridge.accept(new))
        if not told:
            execution.tell_question(question, id_)
        return self._inquiries.heard(await until_committed(id_, lambda: bridge.wait(id_)))

    async def _reply(self, execution: Execution, request: str, answer: Answer, on_refused: OnRefused) -> None:
        try:
            await self._recall(execution.id)
            id_ = self._promises.get(request)
            if id_ is not None:  # else it was answered while this was on its way
                await until_committed(id_, lambda: self._inquiries.settle(id_, answer))
        except CapsuleError as error:  # nobody can have been asked yet; or it is over
            if isinstance(error, SessionError) and error.code == "answer_refused":
                on_refused(error)
                return
            logger.warning("an answer to %s does not count: %s", execution.id, error)


class Withheld(NamedTuple):
    """What is written down in the place of a password."""

    mark: str


def written(promise: Promise) -> Answer | Withheld | None:
    """The answer of a settled promise as a node writes it down; None for what others gave, who may write anything."""
    body = unpacked(promise.value)
    if not isinstance(body, dict):
        return None
    if body.keys() == {"withheld"} and isinstance(body["withheld"], str):
        return Withheld(body["withheld"])
    if body.keys() != set(Answer._fields):
        return None
    answer = Answer(**body)
    if not isinstance(answer.message, str):
        return None
    if answer.value is None:
        return answer if answer.error in (None, *get_args(InputError)) else None
    if not isinstance(answer.value, str) or answer.error is not None or promise.state != "resolved":
        return None
    try:
        unpack_question(promise).check(answer)
    except SessionError:
        return None
    return answer


def _from_elsewhere(promise: Promise) -> Answer:
    """What somebody has settled the promise with who is no node: text, or why there is none."""
    text = text_of(promise.value)
    if promise.state == "resolved":
        refusal = ""
        for value in (text, json.dumps(text)):  # where JSON is asked for, a plain word may have been meant as one
            try:
                unpack_question(promise).check(Answer(value))
            except SessionError as error:
                refusal = error.message
            else:
                return Answer(value)
        return Answer(None, "eof", refusal)  # it is the verdict all the same, and the code has to go on without it
    return Answer(None, "canceled" if promise.state == CANCELED else "eof", text)


def pack_question(question: Question) -> bytes:
    """What was asked, as a promise has it."""
    packed: bytes = packb(question._asdict(), unicode_errors="backslashreplace")
    return packed


def unpack_question(promise: Promise) -> Question:
    """What was asked."""
    return Question(**unpackb(request_of(promise)))


def _action(answer: Answer) -> Action:
    if answer.error is None:
        return "resolve"
    return "cancel" if answer.error == "canceled" else "reject"
