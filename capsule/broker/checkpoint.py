"""The one checkpoint that every call passes, always in this order.

declared → policy → validate → rate and concurrency → approval → run with time-out → outcome → audit
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import Counter
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from capsule.broker.arguments import packed_size
from capsule.broker.attempt import Outcome, Target
from capsule.broker.policy import Query, narrow
from capsule.broker.sdk import Call, answered
from capsule_protocol.errors import CapabilityDenied, CapabilityError, CapabilityFailed, CapabilityTimeout

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from capsule.broker.account import Account
    from capsule.broker.approvals import Approvals
    from capsule.broker.attempt import Attempt
    from capsule.broker.book import Book
    from capsule.broker.budget import Budget
    from capsule.broker.grants import Grant
    from capsule.broker.policy import Decision, Policy
    from capsule.broker.recording import Recorder
    from capsule.broker.sdk import Provider, Schema

logger = logging.getLogger("capsule.broker")

NO_FAULTS = frozenset(
    {
        "capability_isolated",
        "capability_throttled",
        "capability_busy",
        "capability_canceled",
        "approval_denied",
        "approval_expired",
        "audit_unavailable",
        "path_unknown",
        "path_exists",
        "path_is_directory",
        "path_not_directory",
        "path_not_empty",
    }
)
"""Codes that say nothing against the session: what honest code runs into, and what follows from earlier faults."""

MAX_PLACE = 200
"""Characters of what the caller has chosen that a refusal repeats."""


class Checkpoint:
    """That of one node. `policy` may be replaced between two calls."""

    def __init__(
        self, providers: Mapping[str, Provider], policy: Policy, recorder: Recorder, approvals: Approvals
    ) -> None:
        self.providers = providers
        self.policy = policy
        self.recorder = recorder
        self.approvals = approvals
        self.counts: Counter[tuple[str, ...]] = Counter()
        """How many calls had each outcome, by capability; those that nobody declares are counted together."""

    async def settle(self, attempt: Attempt, account: Account, book: Book | None) -> Outcome:
        """Take a call through it; whatever happens, there is an outcome, and it is in the audit trail."""
        attempt.policy = self.policy
        try:
            outcome = await self._pass(attempt, account, book)
        except CapabilityError as error:
            outcome = _refused(error)
        except asyncio.CancelledError:
            outcome = _refused(CapabilityFailed("capability_canceled", f"{attempt.capability} was given up"))
        except Exception as error:
            logger.exception("%s of session %s", attempt.capability, attempt.asker.session)
            message = f"the provider of {attempt.capability} made a mistake ({type(error).__name__})"
            outcome = _refused(CapabilityFailed("capability_failed", message, hint="The log of the node has more."))
        attempt.ending = True
        if attempt.started and book is not None:
            outcome = await book.end(attempt, outcome)
        try:
            await self._count(attempt, account, outcome)
            await self.recorder.ended(attempt, outcome)
        except CapabilityDenied as error:  # what is not recorded is not told
            outcome = _refused(_untold(attempt, error) if attempt.made or outcome.recorded else error)
        self.counts["unknown" if attempt.target is None else attempt.capability, outcome.result] += 1
        return outcome

    # --- the steps ---

    async def _pass(self, attempt: Attempt, account: Account, book: Book | None) -> Outcome:
        with self._observing(attempt):
            await self._check_budget(attempt, account)
        target = attempt.target = self._declared(attempt.capability)
        decision = self._decide(attempt)
        attempt.request = _validated(attempt)
        try:
            attempt.grant = await _choose(attempt, decision)
        except (CapabilityFailed, CapabilityTimeout) as error:
            recorded = None if error.code == "capability_invalid" else await _recorded(attempt, book)
            if recorded is None:
                raise
            return recorded  # though it cannot be made now: to be told so would be to make it twice
        limits = attempt.limits = attempt.grant.limits_for(target.operation)
        recorded = await _recorded(attempt, book)
        if recorded is not None:
            return recorded
        self._bound(attempt, account, attempt.weight.size)
        key = (attempt.grant.name, attempt.capability)
        with self._observing(attempt):
            account.check_rate(key, limits, time.monotonic())
        async with account.room(key, limits):
            await self._decide_again(attempt, account)
            await self._approve(attempt, account)
            return await self._run(attempt, book)

    async def _check_budget(self, attempt: Attempt, account: Account) -> None:
        """Who fails often is slowed down: what is denied costs a record too. Not while that is only tried out."""
        waits = self.policy.mode != "observe"
        budget = self._budget(attempt, account)
        try:
            delay = budget.check(time.monotonic())
        except CapabilityDenied:
            if waits:
                await asyncio.sleep(self.policy.budget.delay)
            raise
        attempt.probe = budget.state == "probing"  # which lets no other one through
        if delay and waits:  # to wait for no time at all is a turn of the loop
            await asyncio.sleep(delay)

    def _budget(self, attempt: Attempt, account: Account) -> Budget:
        """Of the provider; calls of providers that there are not have one together."""
        name = attempt.capability.partition(".")[0]
        return account.budget(name if name in self.providers else "", self.policy.budget)

    def _declared(self, capability: str) -> Target:
        name, _, operation = capability.partition(".")
        provider = self.providers.get(name)
        found = None if provider is None else provider.descriptor.operations.get(operation)
        if provider is None or found is None:
            raise CapabilityDenied("capability_unknown", f"there is no capability {capability[:200]!r}")
        return Target(provider, found, operation)

    def _decide(self, attempt: Attempt) -> Decision:
        asker, attempt.policy = attempt.asker, self.policy
        query = Query(attempt.capability, asker.principal, asker.environment, asker.session_name)
        decision = narrow(self.policy.decide(query), attempt.wanted)
        attempt.why = decision.why
        if not decision.allowed:
            raise CapabilityDenied("capability_denied", decision.why, details={"line": decision.line})
        return decision

    def _bound(self, attempt: Attempt, account: Account, size: int) -> None:
        """Of arguments and bodies, of which there are `size` more. Raises CapabilityFailed `capability_too_large`."""
        assert attempt.limits is not None
        assert attempt.grant is not None
        carry = partial(account.carry, attempt.grant.name, attempt.limits)
        attempt.inlet.limit, attempt.inlet.count = attempt.limits.request_bytes, carry
        attempt.inlet.add(size)
        attempt.outlet.limit, attempt.outlet.count = attempt.limits.response_bytes, carry

    async def _approve(self, attempt: Attempt, account: Account) -> None:
        assert attempt.grant is not None
        approved = account.approved(attempt.grant, attempt.capability)
        size = None if attempt.inlet.more else attempt.inlet.size
        why = attempt.grant.approval.needed(attempt.request, size, approved=approved)
        if why and self.policy.mode == "observe":
            attempt.observed.append("approval_needed")
        elif why:
            await self._ask(attempt, account, why)

    async def _ask(self, attempt: Attempt, account: Account, why: str) -> None:
        assert attempt.grant is not None
        asked = attempt.grant
        with attempt.standing():
            answer = await self.approvals.ask(attempt, why)
        attempt.approval = answer.by
        await self._decide_again(attempt, account)
        if answer.for_session:
            account.approve(asked)

    async def _decide_again(self, attempt: Attempt, account: Account) -> None:
        """If the policy was switched while the call waited. Raises CapabilityDenied unless it allows the very same."""
        while self.policy is not attempt.policy:  # to look may take a while, too
            before, attempt.grant = attempt.grant, None
            assert before is not None
            assert attempt.target is not None
            grant = await _choose(attempt, self._decide(attempt))
            if (grant.name, grant.scope) != (before.name, before.scope):
                raise CapabilityDenied("capability_denied", f"the grant {before.name!r} is another one by now")
            attempt.grant, attempt.limits = grant, grant.limits_for(attempt.target.operation)
            self._bound(attempt, account, 0)

    async def _run(self, attempt: Attempt, book: Book | None) -> Outcome:
        target, limits, grant = attempt.target, attempt.limits, attempt.grant
        assert target is not None
        assert limits is not None
        assert grant is not None
        attempt.inlet.count(attempt.weight.size)
        if target.operation.effects:
            await self.recorder.begun(attempt)
            if book is not None:
                await book.begin(attempt)
                attempt.started = True
            attempt.made = True
        call = Call(
            operation=target.name,
            request=attempt.request,
            scope=grant.scope,
            asker=attempt.asker,
            key=attempt.key,
            limits=limits,
            body=aiter(attempt.inlet),
            send=attempt.outlet.send,
        )
        try:
            async with asyncio.timeout(limits.timeout) as clock:
                response = await target.provider.call(call)
        except (CapabilityError, TimeoutError) as error:
            expired = clock.expired() and not isinstance(error, CapabilityError)
            return _refused(_timed_out(attempt) if expired else _failure(attempt, error))
        return _accepted(attempt, response)

    # --- inside ---

    @contextmanager
    def _observing(self, attempt: Attempt) -> Iterator[None]:
        """Where a policy is only tried out, a denial is noted, and does not count."""
        try:
            yield
        except CapabilityDenied as error:
            if self.policy.mode != "observe":
                raise
            attempt.observed.append(error.code)

    async def _count(self, attempt: Attempt, account: Account, outcome: Outcome) -> None:
        """Faults of calls, which may cost the session the next ones."""
        if not outcome.recorded:
            budget = self._budget(attempt, account)
            if outcome.error is None:
                budget.success(time.monotonic(), probe=attempt.probe)
            elif outcome.error.code not in NO_FAULTS:
                budget.fault(time.monotonic(), probe=attempt.probe)
        for step in account.steps():
            await self.recorder.stepped(attempt, step, self.policy)


def _validated(attempt: Attempt) -> Schema:
    """The request. Raises CapabilityFailed `capability_invalid`, or `capability_too_large`."""
    assert attempt.target is not None
    if attempt.weight.excess is not None:
        raise attempt.weight.excess
    schema = attempt.target.operation.request
    names = list(schema.model_fields)
    given: dict[str, Any] = dict(zip(names, attempt.positional, strict=False))
    twice = given.keys() & attempt.arguments.keys()
    if len(attempt.positional) > len(names) or twice:
        what = f"{min(twice)} is given twice" if twice else f"{len(attempt.positional)} arguments are given"
        raise _invalid(attempt, what, names)
    if not attempt.target.operation.takes_body and (attempt.inlet.more or attempt.inlet.size):
        raise _invalid(attempt, "it takes no body", names)
    try:
        # As JSON, for which a list is as good as a tuple; bytes travel as the body.
        return schema.model_validate_json(json.dumps(given | attempt.arguments))
    except (TypeError, ValueError, RecursionError) as error:
        if not isinstance(error, ValidationError):
            raise _invalid(attempt, "an argument is none that JSON can say", names) from None
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(map(str, first["loc"])) or "arguments"
        raise _invalid(attempt, f"{place[:MAX_PLACE]}: {first['msg'][:MAX_PLACE]}", names) from None


def _invalid(attempt: Attempt, what: str, names: list[str]) -> CapabilityFailed:
    assert attempt.target is not None
    body = ["data (bytes)"] if attempt.target.operation.takes_body else []
    allowed = ", ".join([*names, *body]) or "no arguments"
    message = f"{attempt.capability}: {what}; it takes {allowed}"
    return CapabilityFailed("capability_invalid", message, details={"allowed": names})


async def _choose(attempt: Attempt, decision: Decision) -> Grant:
    """The first grant whose scope admits the request. Raises CapabilityDenied, of the first that does not."""
    assert attempt.target is not None
    refusal: CapabilityDenied | None = None
    for grant in decision.grants:
        try:
            await _admit(attempt.target, attempt, grant)
        except CapabilityDenied as error:
            refusal = refusal or error
        else:
            attempt.why = f"line {grant.line}: the grant {grant.name!r} allows {attempt.capability}"
            return grant
    assert refusal is not None
    grant = decision.grants[0]
    refusal.details.setdefault("line", grant.line)
    attempt.why = f"line {grant.line}: the grant {grant.name!r} does not reach so far"
    raise refusal


async def _admit(target: Target, attempt: Attempt, grant: Grant) -> None:
    """Have the provider look, wherever it is. Raises CapabilityDenied if it is outside the scope; CapabilityFailed."""
    try:
        await answered(target.provider.admit(target.name, attempt.request, grant.scope))
    except CapabilityFailed as error:
        if error.code == "capability_invalid":
            attempt.request = None  # it fits no schema after all
        raise


async def _recorded(attempt: Attempt, book: Book | None) -> Outcome | None:
    """What became of a call that an earlier node has made. Raises CapabilityFailed `capability_uncertain`."""
    assert attempt.target is not None
    return await book.find(attempt) if book is not None and attempt.target.operation.effects else None


def _accepted(attempt: Attempt, response: Schema) -> Outcome:
    """The answer, whose fields count as its body does. Raises CapabilityFailed `capability_too_large`."""
    assert attempt.target is not None
    operation = attempt.target.operation
    if not isinstance(response, operation.response):
        raise TypeError(f"{attempt.capability} answered with {type(response).__name__}")
    value = {} if operation.returns == "body" else response.model_dump()
    if value:
        attempt.outlet.add(packed_size(value))
    return Outcome("accepted", value, operation.body_kind if operation.gives_body else "", attempt.outlet.rest())


def _refused(error: CapabilityError) -> Outcome:
    return Outcome(error.outcome, {}, error=error)  # type: ignore[arg-type]  # each class has one of the four


def _untold(attempt: Attempt, error: CapabilityDenied) -> CapabilityDenied:
    """Why nothing is told of a call that has changed something: to make it again would be to do that twice."""
    message = f"{attempt.capability} was made, and what became of it cannot be told: {error.message}"
    hint = "Look whether it did what it should before you call again."
    return CapabilityDenied(error.code, message, hint=hint, retryable=False, details=error.details)


def _timed_out(attempt: Attempt) -> CapabilityTimeout:
    assert attempt.limits is not None
    assert attempt.target is not None
    message = f"{attempt.capability} took longer than {attempt.limits.timeout:g} s"
    retryable, details = not attempt.target.operation.effects, {"timeout": attempt.limits.timeout}
    return CapabilityTimeout("capability_timeout", message, retryable=retryable, details=details)


def _failure(attempt: Attempt, error: CapabilityError | TimeoutError) -> CapabilityError:
    """What the provider raised, with what had caused that."""
    if not isinstance(error, CapabilityError):
        error = CapabilityFailed("capability_failed", f"{attempt.capability} timed out by itself")
    causes: list[str] = []
    cause = error.__cause__
    while cause is not None and len(causes) < 8:
        causes.append(type(cause).__name__)
        cause = cause.__cause__
    if causes:
        error.details.setdefault("causes", causes)
    return error
