"""Why a call would be allowed, or not: what each line says of it, and what its provider makes of the arguments."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import ValidationError

from capsule.broker.patterns import Names, covers
from capsule.broker.sdk import answered
from capsule.settings.complaints import complaints
from capsule_protocol.errors import CapabilityDenied, CapabilityError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from capsule.broker.grants import DenialTable, Grant, GrantTable
    from capsule.broker.policy import Policy, Query
    from capsule.broker.sdk import Limits, Operation, Provider, Schema


class Reading(NamedTuple):
    """What one table says of a call: whether it `matches`, and if not, what stands in the way."""

    line: int
    kind: str
    name: str
    matches: bool
    why: str


class Judgement(NamedTuple):
    """Whether a call would be allowed, by which line, and how. `approval`: why it would wait for one, or ""."""

    allowed: bool
    code: str
    line: int
    grant: str
    why: str
    approval: str = ""
    limits: Limits | None = None


class Asked(NamedTuple):
    """A call that could be made. Without `arguments` only those lines are looked at that could allow some call."""

    query: Query
    arguments: Mapping[str, Any] | None = None
    request_bytes: int = 0


def readings(policy: Policy, query: Query) -> tuple[Reading, ...]:
    """What each table that names the capability says, in the order of the file."""
    tables: list[tuple[str, int, GrantTable | DenialTable]] = [
        *(("denial", denial.line, denial.table) for denial in policy.denials),
        *(("grant", rule.line, rule.table) for rule in policy.rules),
    ]
    found = [_reading(kind, line, table, query) for kind, line, table in tables if _names(table, query.capability)]
    return tuple(sorted(found))


async def judge(policy: Policy, providers: Mapping[str, Provider], asked: Asked) -> Judgement:
    """The decision of the policy, and of the provider within the scope of the grants that the policy names."""
    query = asked.query
    name, _, short = query.capability.partition(".")
    provider = providers.get(name)
    operation = provider.descriptor.operations.get(short) if provider is not None else None
    if provider is None or operation is None:
        known = ", ".join(policy.operations) or "none"
        return _denied("capability_unknown", f"no provider has {query.capability}; there are: {known}")
    decision = policy.decide(query)
    if not decision.allowed:
        return _denied("capability_denied", decision.why, decision.line)
    if asked.arguments is None:
        return _allowed(decision.grants[0], operation, decision.why, "", certain=False)
    try:
        request = _request(operation, asked.arguments)
    except ValidationError as error:
        first = complaints(operation.request, error)[0]
        words = f"{'.'.join(first.path)}: {first.message}; allowed: {first.allowed}"
        return _denied("capability_invalid", f"the arguments do not fit {query.capability}: {words}")
    return await _admitted(provider, short, request, decision.grants, asked.request_bytes)


async def _admitted(
    provider: Provider, short: str, request: Schema, grants: Sequence[Grant], request_bytes: int
) -> Judgement:
    """The first grant within whose scope the request is counts; none behind one of which its provider cannot tell."""
    operation = provider.descriptor.operations[short]
    refusals = []
    for grant in grants:
        try:
            await answered(provider.admit(short, request, grant.scope))
        except CapabilityDenied as error:
            refusals.append((error, grant))
            continue
        except CapabilityError as error:
            return _denied(
                error.code, f"line {grant.line}: the grant {grant.name!r}: {error.message}", grant.line, grant.name
            )
        approval = grant.approval.needed(request, request_bytes)
        why = f"line {grant.line}: the grant {grant.name!r} allows {provider.descriptor.name}.{short}"
        return _allowed(grant, operation, why, approval, certain=True)
    first, counts = refusals[0]
    told = "; ".join(
        f"line {one.line}: the grant {one.name!r} does not: {refusal.message}" for refusal, one in refusals
    )
    return _denied(first.code, told, counts.line, counts.name)


def _allowed(grant: Grant, operation: Operation, why: str, approval: str, *, certain: bool) -> Judgement:
    if not certain:
        why += ", with arguments within its scope"
        approval = "" if grant.approval.rule == "never" else f"its approval is {grant.approval.rule!r}"
    limits = grant.limits_for(operation)
    return Judgement(
        allowed=True, code="", line=grant.line, grant=grant.name, why=why, approval=approval, limits=limits
    )


def _denied(code: str, why: str, line: int = 0, grant: str = "") -> Judgement:
    return Judgement(allowed=False, code=code, line=line, grant=grant, why=why)


def _request(operation: Operation, arguments: Mapping[str, Any]) -> Schema:
    """The request that these texts are: each as text, or as JSON where the schema wants something else."""
    values: dict[str, Any] = dict(arguments)
    try:
        return operation.request.model_validate_json(json.dumps(values))
    except ValidationError as error:
        for detail in error.errors():
            name = detail["loc"][0] if detail["loc"] else None
            if isinstance(arguments.get(str(name)), str):
                values[str(name)] = _from_json(arguments[str(name)])
    return operation.request.model_validate_json(json.dumps(values))


def _from_json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _names(table: GrantTable | DenialTable, capability: str) -> bool:
    return any(covers(pattern, capability) for pattern in table.capabilities)


def _reading(kind: str, line: int, table: GrantTable | DenialTable, query: Query) -> Reading:
    fields = (
        ("principals", query.principal, table.principals),
        ("environments", query.environment, table.environments),
        ("sessions", query.session, table.sessions),
    )
    against = [
        f"{name} = {json.dumps(list(patterns)[:5])}{' …' if len(patterns) > 5 else ''} does not name {value!r}"
        for name, value, patterns in fields
        if not Names([patterns]).search(value)
    ]
    return Reading(line, kind, table.name, not against, "; ".join(against) or "matches")
