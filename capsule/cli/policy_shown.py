"""How `capsule policy` shows what it found: a policy, a judgement, what would change."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from capsule.cli import tables
from capsule.text import one_line

if TYPE_CHECKING:
    from capsule.broker.explaining import Judgement
    from capsule.broker.policy import Policy
    from capsule.broker.replaying import Replay

GRANTS = ("LINE", "GRANT", "CAPABILITIES", "PRINCIPALS", "ENVIRONMENTS", "SESSIONS", "APPROVAL", "LIMITS")
DENIALS = ("LINE", "DENIAL", "CAPABILITIES", "PRINCIPALS", "ENVIRONMENTS", "SESSIONS", "REASON")
OBSERVED = (
    " (rates, the fault budget and approvals are only noted, in details.observed of the audit trail; "
    "what no grant allows, or a denial forbids, is denied)"
)
"""What a mode that only tries out does not do."""
CHANGES = ("CALLS", "CAPABILITY", "PRINCIPAL", "ENVIRONMENT", "SESSION", "WAS", "WOULD BE", "WHY")


def described(found: Policy) -> dict[str, Any]:
    """All that a policy says, as JSON has it."""
    pack = found.pack.model_dump()
    return {
        "version": found.version,
        "name": found.name,
        "digest": found.digest,
        "mode": found.mode,
        "pack": found.pack_name,
        "sandbox": found.sandbox,
        "approval": _rule(found.pack.approval),
        "approval_timeout": pack["approval_timeout"],
        **{name: pack[name] for name in ("ceiling", "budget", "audit")},
        "denials": [
            {"line": one.line, **{key: value for key, value in one.table.model_dump().items() if key != "scope"}}
            for one in found.denials
        ],
        "grants": [_granted(one.line, one.table.model_dump(exclude_unset=True), one.table) for one in found.rules],
    }


def tell_policy(found: Policy) -> None:
    """All that a policy says, for people."""
    data = described(found)
    for name in ("name", "digest", "mode", "pack", "sandbox", "approval", "approval_timeout"):
        click.echo(f"{name:16}  {one_line(data[name])}{OBSERVED if data[name] == 'observe' and name == 'mode' else ''}")
    for name in ("ceiling", "budget", "audit"):
        click.echo(f"{name:16}  {', '.join(f'{key} = {_value(value)}' for key, value in data[name].items())}")
    for key, headings in (("denials", DENIALS), ("grants", GRANTS)):
        if data[key]:
            rows = [[_cell(value) for name, value in one.items() if name != "scope"] for one in data[key]]
            click.echo("\n" + tables.text(headings, rows, terminal=os.isatty(1)), nl=False, color=True)


def _granted(line: int, given: dict[str, Any], table: Any) -> dict[str, Any]:
    named = ("name", "capabilities", "principals", "environments", "sessions")
    return {
        "line": line,
        **{name: getattr(table, name) for name in named},
        "approval": _rule(table.approval),
        "limits": given.get("limits", {}),
        "scope": given.get("scope", {}),
    }


def _rule(rule: Any) -> Any:
    """An approval as a file has it."""
    from capsule.broker.consent import Above

    if isinstance(rule, Above):
        return {"above": dict(rule.bounds)}
    return rule


def say(judged: Judgement) -> None:
    """Whether a call would be allowed, in words."""
    click.echo(f"{'allowed' if judged.allowed else f'denied ({judged.code})'}: {one_line(judged.why)}")
    if judged.approval:
        click.echo(f"It would wait for an approval: {judged.approval}.")


def judged_as_data(judged: Judgement) -> dict[str, Any]:
    """The same as JSON has it."""
    return judged._asdict() | {"limits": None if judged.limits is None else asdict(judged.limits)}


def tell_changes(found: Replay, *, as_json: bool) -> None:
    """Which recorded calls would end otherwise."""
    changes = sorted(found.changes.items(), key=lambda change: -change[1])
    if as_json:
        told = [{"calls": count, **one.query._asdict(), **one._asdict()} for one, count in changes]
        for one in told:
            del one["query"]
        click.echo(json.dumps({"calls": found.calls, "changes": told}))
        return
    click.echo(f"{found.calls} calls, of which {sum(found.changes.values())} would end otherwise")
    rows = [(count, *one.query, one.was, one.would, one.why) for one, count in changes]
    if rows:
        click.echo(tables.text(CHANGES, rows, terminal=os.isatty(1)), nl=False, color=True)


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} = {_value(one)}" for name, one in value.items()) or "-"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return "-" if value in {None, ""} else str(value)


def _value(value: Any) -> str:
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
