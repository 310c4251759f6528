"""What the broker writes into the audit trail: each decision, allowed or not, and what became of the call."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from capsule.broker.approvals import describe, recorded
from capsule.broker.audit import Record, redacted, unchecked
from capsule.broker.audit.record import MAX_TEXT

if TYPE_CHECKING:
    from capsule.broker.approvals import Decision
    from capsule.broker.attempt import Attempt, Outcome
    from capsule.broker.audit import Audit
    from capsule.broker.budget import Step
    from capsule.broker.policy import Policy
    from capsule.broker.registry import Found
    from capsule.broker.sdk import Asker
    from capsule_bridge import Promise, Settled
    from capsule_protocol.errors import CapsuleError


class Recorder:
    """Over one audit trail. Its methods raise CapabilityDenied `audit_unavailable` if calls are to stop then."""

    def __init__(self, audit: Audit) -> None:
        self.audit = audit

    async def begun(self, attempt: Attempt) -> None:
        """A call that changes something is about to be made."""
        details = {"submitters": list(attempt.asker.submitters)} if attempt.asker.submitters else None
        await self.audit.append(_record(attempt)._replace(outcome="begun", details=details))

    async def ended(self, attempt: Attempt, outcome: Outcome) -> None:
        """What became of a call."""
        details: dict[str, Any] = {}
        if attempt.approval:
            details["approved_by"] = attempt.approval
        if attempt.observed:
            details["observed"] = attempt.observed
        if outcome.recorded:
            details["recorded"] = True
        if attempt.asker.submitters:
            details["submitters"] = list(attempt.asker.submitters)
        record = _record(attempt)._replace(
            outcome=outcome.result,
            code="" if outcome.error is None else outcome.error.code,
            duration=round(time.time() - attempt.begun, 6),
            request_bytes=attempt.inlet.size,
            response_bytes=attempt.outlet.size,
            details=details or None,
        )
        await self.audit.append(record)

    async def refused(self, asker: Asker, code: str, why: str, count: int, policy: Policy) -> None:
        """So many calls were not looked at."""
        record = Record(
            "call",
            outcome="denied",
            code=code,
            principal=asker.principal,
            session=asker.session,
            session_name=asker.session_name,
            environment=asker.environment,
            execution=asker.execution,
            policy=policy.digest,
            why=why,
            details={"count": count},
        )
        await self.audit.append(record)

    async def stepped(self, attempt: Attempt, step: Step, policy: Policy) -> None:
        """The faults of a session have led to something."""
        asker = attempt.asker
        record = Record(
            "budget",
            outcome=step.state,
            principal=asker.principal,
            session=asker.session,
            session_name=asker.session_name,
            capability=attempt.capability,
            policy=policy.digest,
            why=step.why,
        )
        await self.audit.append(record)

    async def decided(self, settled: Settled, decision: Decision, policy: Policy) -> None:
        """Somebody has approved a call, or not."""
        details = _flags(decision)
        if not settled.decided:
            details["too_late"] = True
        record = _word(settled.promise, decision, policy)._replace(
            outcome="approved" if decision.approve else "denied", why=decision.reason, details=details or None
        )
        await self.audit.append(record)

    async def turned_away(self, promise: Promise, decision: Decision, error: CapsuleError, policy: Policy) -> None:
        """Somebody wanted to approve a call, and may not: it is their own, or their role is too small."""
        details: dict[str, Any] = {"owner": promise.principal, **_flags(decision)}
        if submitters := describe(promise).get("submitters"):
            details["submitters"] = list(submitters)
        if decision.reason:
            details["reason"] = decision.reason[:MAX_TEXT]
        record = _word(promise, decision, policy)._replace(
            outcome="refused", code=error.code, why=error.message, details=details
        )
        await self.audit.append(record)

    async def switched(self, policy: Policy, before: str = "") -> None:
        """A policy is in force from now on, instead of the one with the digest `before`."""
        details = {"name": policy.name, "pack": policy.pack_name, "mode": policy.mode, "before": before}
        await self.audit.append(Record("policy", outcome="in_force", policy=policy.digest, details=details))

    async def loaded(self, name: str, found: Found) -> None:
        """A provider acts from now on."""
        details = {"version": found.provider.descriptor.version, "origin": found.origin, "from": found.distribution}
        await self.audit.append(Record("provider", outcome="loaded", capability=f"{name}.*", details=details))


def _word(promise: Promise, decision: Decision, policy: Policy) -> Record:
    """Who has a say on which call."""
    asked = describe(promise)
    return Record(
        "approval",
        principal=decision.by,
        session=promise.session,
        session_name=asked["session_name"],
        execution=asked["execution"],
        capability=asked["capability"],
        key=promise.id,
        arguments=recorded(promise),
        grant=asked["grant"],
        line=asked["line"],
        policy=policy.digest,
    )


def _flags(decision: Decision) -> dict[str, Any]:
    return {name: True for name in ("for_session", "break_glass") if getattr(decision, name)}


def _record(attempt: Attempt) -> Record:
    """Who asks for what, and which line of which policy counts.

    Arguments that fit no schema are known by their sizes only.
    """
    asker, grant = attempt.asker, attempt.grant
    if attempt.weight.excess is not None:
        arguments = {"…": {"bytes": attempt.weight.size}}
    elif attempt.request is not None:
        arguments = redacted(attempt.request)
    else:
        arguments = unchecked({**{str(at): each for at, each in enumerate(attempt.positional)}, **attempt.arguments})
    return Record(
        "call",
        principal=asker.principal,
        session=asker.session,
        session_name=asker.session_name,
        environment=asker.environment,
        execution=asker.execution,
        capability=attempt.capability,
        key=attempt.key,
        arguments=arguments,
        grant="" if grant is None else grant.name,
        line=0 if grant is None else grant.line,
        policy="" if attempt.policy is None else attempt.policy.digest,
        why=attempt.why,
    )
