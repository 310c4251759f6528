"""What clients ask for about promises: which wait, one of them, and to settle one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from capsule.broker import approvals
from capsule.node.asking import Answer
from capsule.node.durable.inquiries import unpack_question
from capsule.node.durable.records import execution_of
from capsule.node.durable.told import KINDS, description, summary
from capsule_bridge.rules import unknown
from capsule_protocol.answers import ANSWER_BYTES, json_text
from capsule_protocol.errors import ArgumentError, SessionError, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from capsule.node.asking import Question
    from capsule.node.auth.principals import Role
    from capsule.node.durable import Ledger
    from capsule.node.front.desk import Office
    from capsule.node.front.requests import Caller
    from capsule_bridge import Promise, Settled
    from capsule_protocol.envelope import Envelope

LISTED = 200
"""Promises that one answer looks at; who asked goes on behind them."""


class Promises:
    """Those of one connection. The gate has looked at the role; what belongs to others exists only for operators."""

    def __init__(self, desk: Office, caller: Caller) -> None:
        self._desk = desk
        self._caller = caller
        self.kinds: dict[str, Callable[[Any, Envelope], Coroutine[Any, Any, None]]] = {
            "promises": self._list,
            "promise": self._show,
            "settle": self._settle,
        }

    async def _list(self, message: Any, envelope: Envelope) -> None:
        bridge = self._ledger().bridge
        page = await self._page(message.after)
        rows = [summary(promise, bridge.now()) for promise in page if self._sees(promise)]
        info = {"promises": rows, "after": page[-1].id if len(page) == LISTED else ""}
        self._caller.answer("info_reply", {"info": info}, envelope)

    async def _page(self, after: str) -> list[Promise]:
        """Those behind one; without those that cannot be read, for which the others shall not suffer."""
        bridge = self._ledger().bridge
        try:
            return await bridge.store.pending(now=bridge.now(), after=after, limit=LISTED)
        except StoreError:
            return (await bridge.readable(after))[:LISTED]

    async def _show(self, message: Any, envelope: Envelope) -> None:
        promise = await self._find(message.promise)
        self._caller.answer("info_reply", {"info": {"promise": self._describe(promise)}}, envelope)

    async def _settle(self, message: Any, envelope: Envelope) -> None:
        promise = await self._find(message.promise)
        if promise.kind == "input":
            question = unpack_question(promise)
            if promise.pending and question.password and message.action == "resolve":
                # The answer is not written down, so it cannot be passed on.
                await self._desk.registry.seek(self._caller.principal, promise.session)
            promise, decided = await self._ledger().inquiries.settle(promise.id, answer_of(message, question))
        elif promise.kind == approvals.KIND:
            promise, decided = await self._decide(promise, message)
        else:
            decided = await self._cancel(promise, message.action)
            promise = await self._find(promise.id)
        info = {"promise": self._describe(promise), "decided": decided}
        self._caller.answer("info_reply", {"info": info}, envelope)

    async def _decide(self, promise: Promise, message: Any) -> Settled:
        """Somebody approves a call, or does not. Raises SessionError `permission_denied`."""
        broker, principal = self._desk.node.broker, self._caller.principal
        if broker is None:
            raise SessionError("unsupported", "this node has no policy, so nothing of it is approved")
        said = _said(message)._replace(by=principal.name)
        wanted: Role = "admin" if said.break_glass else "operator"
        if said.approve and not principal.is_at_least(wanted):
            error = SessionError("permission_denied", f"to approve a call needs the role {wanted}")
            await broker.refuse(promise, said, error)
            raise error
        return await broker.decide(promise.id, said)

    async def _cancel(self, promise: Promise, action: str) -> bool:
        """The code is interrupted, or taken out of the queue; what comes of that is the verdict."""
        if action != "cancel":
            raise ArgumentError("action", f"is {action!r}: the code itself gives the verdict", allowed="'cancel'")
        if not promise.pending:
            return False
        hosted = await self._desk.registry.seek(self._caller.principal, promise.session)
        return await hosted.cancel(execution_of(promise))

    def _describe(self, promise: Promise) -> dict[str, Any]:
        return description(promise, self._ledger().bridge.now())

    async def _find(self, id_: str) -> Promise:
        promise = await self._ledger().bridge.get(id_)
        if not self._sees(promise):
            raise unknown(id_)
        return promise

    def _sees(self, promise: Promise) -> bool:
        mine = self._caller.principal.sees_all or promise.principal == self._caller.owner
        return mine and promise.kind in KINDS

    def _ledger(self) -> Ledger:
        ledger = self._desk.registry.ledger
        if ledger is None:
            hint = "Give it a store: `[store] durability` in its configuration."
            raise SessionError("unsupported", "this node keeps no promises", hint=hint)
        return ledger


def _said(message: Any) -> approvals.Decision:
    """What `settle` says of an approval. Raises ArgumentError."""
    given = message.value if isinstance(message.value, dict) else {}
    flags = {name: given[name] for name in ("for_session", "break_glass") if given.get(name)}
    if any(flag is not True for flag in flags.values()) or given.keys() - {"for_session", "break_glass"}:
        raise ArgumentError("value", "is no word on an approval", allowed="{'for_session': bool, 'break_glass': bool}")
    return approvals.Decision(message.action == "resolve", "", message.message, **flags)


def answer_of(message: Any, question: Question) -> Answer:
    """What somebody says who settles the promise of a question. Raises SessionError `answer_refused`."""
    if message.action != "resolve":
        return Answer(None, "eof" if message.action == "reject" else "canceled", message.message)
    if question.terms.typed:
        return Answer(json_text(message.value))
    if not isinstance(message.value, str):
        raise SessionError("answer_refused", f"the question wants text, and not {type(message.value).__name__}")
    if len(message.value) > ANSWER_BYTES or len(message.value.encode(errors="replace")) > ANSWER_BYTES:
        raise SessionError("answer_refused", f"the answer has more than {ANSWER_BYTES} bytes")
    return Answer(message.value)
