"""What a policy would make of calls that were recorded: which of them would end otherwise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from capsule.broker.explaining import Asked, judge
from capsule.broker.policy import Query

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from capsule.broker.audit import Entry, Record
    from capsule.broker.explaining import Judgement
    from capsule.broker.policy import Policy
    from capsule.broker.sdk import Provider

MAX_CHANGES = 10_000
"""Kinds of calls that are told apart."""
BY_POLICY = frozenset({"capability_unknown", "capability_denied"})
"""Codes of calls that no grant allowed."""
AFTERWARDS = frozenset(
    {"capability_throttled", "capability_busy", "capability_isolated", "approval_denied", "audit_unavailable"}
)
"""Codes of calls that a grant allowed, and that were denied all the same. Of others it is not known: they are the
provider's own, who may have found only while it acted that something is outside of the scope."""


class Change(NamedTuple):
    """Calls that would end otherwise: what they were, and what they would be, by which line."""

    query: Query
    was: str
    would: str
    code: str
    line: int
    why: str


class Replay(NamedTuple):
    """`calls` that were looked at, and the changes with the number of calls of each."""

    calls: int
    changes: Mapping[Change, int]


async def replay(policy: Policy, providers: Mapping[str, Provider], entries: Iterable[Entry]) -> Replay:
    """Look at all recorded calls. Of those whose arguments were recorded as sizes only the capability is looked at."""
    changes: dict[Change, int] = {}
    calls = 0
    for entry in entries:
        if entry.record.kind != "call" or entry.record.outcome == "begun":
            continue
        calls += 1
        change = await _change(policy, providers, entry.record)
        if change is not None and (change in changes or len(changes) < MAX_CHANGES):
            changes[change] = changes.get(change, 0) + 1
    return Replay(calls, changes)


def asked(record: Record) -> Asked:
    """The call of a record."""
    query = Query(record.capability, record.principal, record.environment, record.session_name)
    arguments = dict(record.arguments or {})
    return Asked(query, None if any(map(_is_summary, arguments.values())) else arguments, record.request_bytes)


async def _change(policy: Policy, providers: Mapping[str, Provider], record: Record) -> Change | None:
    call = asked(record)
    judged = await judge(policy, providers, call)
    if judged.code == "capability_invalid":  # recorded in a way that the schema does not read
        judged = await judge(policy, providers, call._replace(arguments=None))
    was_allowed = record.outcome != "denied" or record.code in AFTERWARDS
    if judged.allowed == was_allowed or not (was_allowed or record.code in BY_POLICY):
        return None
    was = "allowed" if was_allowed else f"denied ({record.code})"
    return Change(call.query, was, "allowed" if judged.allowed else "denied", judged.code, judged.line, _why(judged))


def _why(judged: Judgement) -> str:
    return f"{judged.why}; it would wait for an approval: {judged.approval}" if judged.approval else judged.why


def _is_summary(value: Any) -> bool:
    return isinstance(value, dict) and bool(value.keys() & {"bytes", "secret_bytes", "items"})
