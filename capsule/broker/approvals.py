"""Calls that wait until somebody has approved them: promises, which anyone with the right may settle, but the asker."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from msgpack import packb, unpackb

from capsule.broker.audit import redacted
from capsule.broker.showing import shown
from capsule_bridge import Bridge, NewPromise, Retention, Settlement, call_promise, execution_promise, fingerprint
from capsule_bridge.rules import request_of, spans
from capsule_protocol.errors import CapabilityDenied, CapabilityFailed, CapabilityTimeout, CapsuleError, SessionError
from capsule_protocol.ids import MESSAGE, new_id

if TYPE_CHECKING:
    from collections.abc import Callable

    from capsule.broker.attempt import Attempt
    from capsule_bridge import Promise, Settled

KIND: Final = "approval"
GLASS: Final = "glass"
"""The kind of promise that stands for a glass that was broken, while that counts."""
MAX_REASON = 1000
"""Characters."""
MAX_PROMPT = 2000
"""Characters of a call in one line."""
GLASSES = 3
"""So often within GLASS_SECONDS somebody may approve what is their own."""
GLASS_SECONDS = 3600.0
_KEPT = Retention(3_600_000, 3_600_000)
"""In memory, where nobody else tidies up."""


class Approved(NamedTuple):
    """Who has approved a call: this one, or all of the session under the same grant."""

    by: str
    for_session: bool
    reason: str = ""


class Decision(NamedTuple):
    """What somebody says to it. `break_glass`: past the rule that nobody approves what is their own."""

    approve: bool
    by: str
    reason: str = ""
    for_session: bool = False
    break_glass: bool = False


class Approvals:
    """Those of one node. `durable`: the bridge has the promises of the executions too, and outlives the node."""

    def __init__(self, bridge: Bridge, *, durable: bool) -> None:
        self.bridge = bridge
        self._durable = durable
        self._breaking = asyncio.Lock()
        self.on_asked: Callable[[dict[str, Any]], object] | None = None
        """Is told of each that is new."""

    async def ask(self, attempt: Attempt, why: str) -> Approved:
        """Wait for it. Raises CapabilityDenied `approval_denied`, CapabilityTimeout `approval_expired`."""
        assert attempt.grant is not None
        assert attempt.request is not None
        timeout = attempt.grant.approval.timeout
        id_ = call_promise(attempt.asker.execution or attempt.asker.session, KIND, attempt.epoch, attempt.number)
        if not self._durable:  # nobody asks a second time
            id_ = f"{id_}:{new_id(MESSAGE)}"
        param = packb(_question(attempt, why), unicode_errors="backslashreplace")
        new = NewPromise(
            id=id_,
            kind=KIND,
            session=attempt.asker.session,
            fingerprint=fingerprint(KIND, attempt.capability, attempt.request.model_dump(mode="json")),
            param=param,
            principal=attempt.asker.principal,
            timeout_at=self.bridge.now() + round(timeout * 1000),
        )
        try:
            created = await self._accept(new)
        except SessionError as error:  # what was approved under this name was another call
            raise CapabilityFailed(error.code, error.message, hint=error.hint, details=error.details) from error
        if created.pending and self.on_asked is not None:
            self.on_asked(describe(created, self.bridge.now()))
        try:
            promise = await self.bridge.wait(id_)
        except asyncio.CancelledError:  # nobody has to approve what nobody waits for
            with suppress(CapsuleError):
                await self.bridge.settle(Settlement(id_, "cancel"))
            raise
        if not self._durable:
            await self.bridge.expire(_KEPT)
        return _read(promise, timeout)

    async def pending(self) -> list[dict[str, Any]]:
        """Those that wait for somebody, oldest first."""
        return [describe(each, self.bridge.now()) for each in await self.bridge.readable() if each.kind == KIND]

    async def show(self, id_: str) -> dict[str, Any]:
        """One of them, decided or not. Raises SessionError `promise_unknown`."""
        return describe(await self.find(id_), self.bridge.now())

    async def decide(self, promise: Promise, decision: Decision) -> Settled:
        """Settle one; the first word counts. Raises SessionError `permission_denied`."""
        if decision.approve:
            await self._check(promise, decision)
        said = {**decision._asdict(), "reason": decision.reason[:MAX_REASON]}
        settlement = Settlement(promise.id, "resolve" if decision.approve else "reject", packb(said))
        (settled,) = await self.bridge.settle(settlement)
        return settled

    async def find(self, id_: str) -> Promise:
        """Its promise. Raises SessionError `promise_unknown`."""
        promise = await self.bridge.get(id_)
        if promise.kind != KIND:
            raise SessionError("promise_unknown", f"{id_!r} is no approval")
        return promise

    async def _check(self, promise: Promise, decision: Decision) -> None:
        """Whether somebody may approve this. Raises SessionError `permission_denied`."""
        asks = (promise.principal, *unpackb(request_of(promise)).get("submitters", ()))
        if decision.by not in asks and not decision.break_glass:
            return
        if not decision.break_glass:
            message = f"{decision.by} asks for this, so somebody else has to approve it"
            raise SessionError("permission_denied", message, hint="An admin can break the glass, for a reason.")
        if not decision.reason.strip():
            raise SessionError("permission_denied", "who breaks the glass has to say why")
        if decision.for_session:
            raise SessionError("permission_denied", "who breaks the glass approves one call, and not all of a session")
        async with self._breaking:
            await self._break(decision.by)

    async def _break(self, by: str) -> None:
        """Write down that somebody breaks a glass: a promise that nobody settles, and that is forgotten in time."""
        found = await self.bridge.readable()
        broken = [each for each in found if each.kind == GLASS and each.principal == by]
        if len(broken) >= GLASSES:
            message = f"{by} has broken the glass {GLASSES} times within {GLASS_SECONDS / 60:g} minutes"
            raise SessionError("permission_denied", message)
        due = self.bridge.now() + round(GLASS_SECONDS * 1000)
        id_ = f"{GLASS}:{new_id(MESSAGE)}"
        await self.bridge.accept(NewPromise(id_, GLASS, "", b"", principal=by, timeout_at=due))

    async def _accept(self, new: NewPromise) -> Promise:
        """With its execution it is canceled; one of what a cell has left behind lives on by itself."""
        if self._durable:
            with suppress(SessionError):
                return (await self.bridge.accept(new._replace(parent=execution_promise(new.id)))).promise
        return (await self.bridge.accept(new)).promise


def describe(promise: Promise, now: int | None = None) -> dict[str, Any]:
    """What is told to whoever may approve it, at a time of the clock of promises, or at none."""
    asked: dict[str, Any] = unpackb(request_of(promise))
    asked.pop("recorded", None)
    answer = said(promise)
    return {
        "id": promise.id,
        "state": promise.state,
        "session": promise.session,
        "owner": promise.principal,
        "created": promise.created_at / 1000,
        "timeout": None if promise.timeout_at is None else promise.timeout_at / 1000,
        **({} if now is None else spans(promise, now)),
        **asked,
        **({"by": answer.get("by", ""), "reason": answer.get("reason", "")} if answer else {}),
    }


def recorded(promise: Promise) -> dict[str, Any]:
    """The arguments of the call as the audit trail has them."""
    asked = unpackb(request_of(promise))
    found: dict[str, Any] = asked.get("recorded", asked["arguments"])
    return found


def said(promise: Promise) -> dict[str, Any]:
    """What somebody has said to it: `by`, `reason`, `for_session`, `break_glass`; nothing if nobody has."""
    return unpackb(promise.value) if promise.value else {}


def prompt(promise: Promise) -> str:
    """The call in one line, which is cut: a list has many of them, and `describe` all of it."""
    asked = unpackb(request_of(promise))
    given = ", ".join(f"{name}={value!r}" for name, value in asked["arguments"].items())
    line = f"{asked['capability']}({given})"
    return line if len(line) <= MAX_PROMPT else f"{line[:MAX_PROMPT]}… ({len(line) - MAX_PROMPT} characters more)"


def _question(attempt: Attempt, why: str) -> dict[str, Any]:
    assert attempt.grant is not None
    assert attempt.request is not None
    return {
        "capability": attempt.capability,
        "arguments": shown(attempt.request),
        "recorded": redacted(attempt.request),
        "why": why,
        "grant": attempt.grant.name,
        "line": attempt.grant.line,
        "execution": attempt.asker.execution,
        "session_name": attempt.asker.session_name,
        "submitters": attempt.asker.submitters,
    }


def _read(promise: Promise, timeout: float) -> Approved:
    answer = said(promise)
    if promise.state == "resolved":
        return Approved(answer.get("by", ""), bool(answer.get("for_session")), answer.get("reason", ""))
    if promise.state == "rejected_timedout":
        raise CapabilityTimeout("approval_expired", f"nobody approved the call within {timeout:g} s")
    by, reason = answer.get("by", "somebody"), answer.get("reason", "")
    because = f": {reason}" if reason else ""
    raise CapabilityDenied("approval_denied", f"{by} has denied the call{because}", details={"by": by})
