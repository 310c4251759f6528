"""Calls of capabilities as promises: one that may have taken effect is never made a second time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from msgpack import packb, unpackb

from capsule.broker.attempt import Outcome
from capsule.node.durable.patience import until_committed
from capsule_bridge import NewPromise, Settlement, call_promise, fingerprint, promise_id, session_promise
from capsule_protocol.errors import CapabilityFailed, SessionError, capability_error

if TYPE_CHECKING:
    from capsule.broker.attempt import Attempt
    from capsule_bridge import Bridge, Created, Promise

KIND: Final = "cap"
RECORDED_BYTES = 8 * 2**20
"""So much of an answer's body is kept with it; of a longer one only that it was given."""
_EPOCH = 1
"""A call is begun by one node or by none, so any number will do that is always the same."""


class CallBook:
    """The `Book` of a node with a durable store."""

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge

    async def find(self, attempt: Attempt) -> Outcome | None:
        """As `Book.find`."""
        id_ = _id(attempt)
        try:
            created = await until_committed(id_, lambda: self._accept(attempt, id_))
        except SessionError as error:  # another call had this number, or its session is gone
            raise CapabilityFailed(error.code, error.message, hint=error.hint, details=error.details) from error
        promise = created.promise
        if not promise.pending:
            return _read(promise, attempt)
        if promise.started_at is not None:
            raise _uncertain(attempt)
        attempt.outlet.keep = RECORDED_BYTES
        return None

    async def begin(self, attempt: Attempt) -> None:
        """As `Book.begin`."""
        id_ = _id(attempt)
        started = await until_committed(id_, lambda: self._bridge.begin(id_, _EPOCH))
        if not started.first:
            raise _uncertain(attempt)

    async def end(self, attempt: Attempt, outcome: Outcome) -> Outcome:
        """As `Book.end`."""
        settlement = Settlement(_id(attempt), "resolve" if outcome.error is None else "reject", _pack(attempt, outcome))
        await until_committed(settlement.id, lambda: self._bridge.settle(settlement))
        return outcome

    async def _accept(self, attempt: Attempt, id_: str) -> Created:
        """A child of its execution; what a cell has left behind calls for the session."""
        assert attempt.request is not None
        asker = attempt.asker
        new = NewPromise(
            id=id_,
            kind=KIND,
            session=asker.session,
            fingerprint=fingerprint(KIND, attempt.capability, attempt.request.model_dump(mode="json")),
            principal=asker.principal,
            parent=promise_id(asker.execution) if asker.execution else session_promise(asker.session),
        )
        try:
            return await self._bridge.accept(new)
        except SessionError as error:
            if error.code not in {"promise_settled", "promise_unknown", "promise_expired"}:
                raise
            return await self._bridge.accept(new._replace(parent=session_promise(asker.session)))


def _id(attempt: Attempt) -> str:
    return call_promise(attempt.asker.execution or attempt.asker.session, KIND, attempt.epoch, attempt.number)


def _pack(attempt: Attempt, outcome: Outcome) -> bytes:
    """What became of it, with a body that is not too long."""
    whole = attempt.outlet.size <= RECORDED_BYTES
    body: dict[str, Any] = {
        "result": outcome.result,
        "value": outcome.value,
        "body": outcome.body,
        "data": b"".join(attempt.outlet.copies) if whole else b"",
        "whole": whole,
        "error": None if outcome.error is None else outcome.error.as_dict(),
    }
    packed: bytes = packb(body, unicode_errors="backslashreplace")
    return packed


def _read(promise: Promise, attempt: Attempt) -> Outcome:
    """What was recorded of it. Raises CapabilityFailed if that is not enough to answer with."""
    if not promise.value:
        raise CapabilityFailed("capability_canceled", f"{attempt.capability} was given up with its execution")
    body = unpackb(promise.value)
    if not body["whole"]:
        message = f"{attempt.capability} was done, and its answer was too large to be kept over the death of the node"
        raise CapabilityFailed("capability_uncertain", message)
    error = None if body["error"] is None else capability_error(body["result"], body["error"])
    return Outcome(body["result"], body["value"], body["body"], (body["data"],), error, recorded=True)


def _uncertain(attempt: Attempt) -> CapabilityFailed:
    message = f"the node died while {attempt.capability} was under way: whether it took effect is not known"
    return CapabilityFailed("capability_uncertain", message)
