"""`capsule audit`: read the audit trail of a node, and look whether it is as it was written."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from capsule.cli import exits, tables
from capsule.cli.options import CONFIG, eager_config_option, json_option
from capsule.cli.reported import reported
from capsule.text import one_line
from capsule_protocol.errors import CapsuleError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from capsule.broker.audit import Entry
    from capsule.broker.audit.reading import Damage, Wanted
    from capsule.broker.audit.verify import Report

FINDINGS = ("", "PLACE", "FINDING")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def _folder(context: click.Context, _parameter: click.Parameter, value: Path | None) -> Path:
    """The directory that was named, else that of the configuration."""
    from capsule.config import load

    if value is not None:
        return value
    try:
        configured = load(context.meta[CONFIG]).broker.audit
    except CapsuleError as error:
        raise click.UsageError(str(error), context) from error
    if configured is None:
        raise click.UsageError("Name an audit trail: DIR, or `audit` in [broker] of the configuration.", context)
    return configured


def folder_argument(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add DIR and `--config`, passed as `folder`."""
    kind = click.Path(path_type=Path)
    argument = click.argument("folder", metavar="[DIR]", required=False, type=kind, callback=_folder)
    return argument(eager_config_option(command))


def _moment(_context: click.Context, _parameter: click.Parameter, value: str | None) -> float | None:
    """A time that has been: so long ago, or a date."""
    if value is None:
        return None
    ago = re.fullmatch(r"([0-9]{1,9})([smhd])", value)
    if ago:
        return time.time() - int(ago[1]) * _UNITS[ago[2]]
    try:
        found = datetime.fromisoformat(value)
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is neither like 15m nor like 2030-01-31T12:00.") from error
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def _one_of(table: str) -> Callable[..., str | None]:
    """For a pattern that must fit one of these: who looks for what cannot be there would find that nothing happened."""

    def check(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
        from capsule.broker.audit import record

        known = getattr(record, table)
        if value is not None and not any(fnmatchcase(name, value) for name in known):
            raise click.BadParameter(f"{value!r} is none of {', '.join(known)}.")
        return value

    return check


def wanted_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say which records are asked for. All but the times may be globs."""
    names = {
        "kind": "call, policy, provider, approval, budget, audit.",
        "principal": "Whose session it was.",
        "session": "The session, by its id or its name.",
        "capability": "What was called: files.read, files.*.",
        "outcome": "What became of it: accepted, denied, timeout, failed; of approvals approved, denied, refused.",
        "code": "The code of the error.",
        "grant": "The name of the grant.",
    }
    since = "Not before: 15m, 12h, 30d ago, or a date like 2030-01-31T12:00 (UTC)."
    known = {"kind": _one_of("KINDS"), "outcome": _one_of("OUTCOMES")}
    options = [
        click.option(f"--{name}", metavar="PATTERN", callback=known.get(name), help=text)
        for name, text in names.items()
    ]
    options += [
        click.option("--since", metavar="TIME", callback=_moment, help=since),
        click.option("--until", metavar="TIME", callback=_moment, help="Before then."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@click.group()
def audit() -> None:
    """The audit trail of a node, in the directory DIR, or where the configuration says. A node may write it meanwhile.

    Exit code: 0 done, 1 `verify` found that it is not as it was written, 2 wrong usage, 3 it cannot be read.
    """


@audit.command()
@folder_argument
@click.option("--lines", metavar="NUMBER", type=click.IntRange(min=0), default=20, show_default=True, help="How many.")
@click.option("--follow", is_flag=True, help="Go on with those that are written, until Ctrl-C.")
@wanted_options
@json_option
@reported
def tail(folder: Path, lines: int, follow: bool, as_json: bool, **wanted: Any) -> None:
    """Show the newest records."""
    from capsule.broker.audit.following import following
    from capsule.broker.audit.reading import Damage, newest

    if not follow:
        damage = Damage()
        _show(newest(folder, lines, _wanted(wanted), damage), as_json=as_json)
        tell_damage(damage)
        return
    with suppress(KeyboardInterrupt):
        for found in following(folder, lines, _wanted(wanted)):
            _show(found, as_json=as_json)
            sys.stdout.flush()


@audit.command()
@folder_argument
@click.option("--limit", metavar="NUMBER", type=click.IntRange(min=1), help="Show the newest so many of them.")
@wanted_options
@json_option
@reported
def query(folder: Path, limit: int | None, as_json: bool, **wanted: Any) -> None:
    """Show all records that are asked for, from the oldest on."""
    from capsule.broker.audit.reading import Damage, entries, newest

    asked, damage = _wanted(wanted), Damage()
    _show(entries(folder, asked, damage) if limit is None else newest(folder, limit, asked, damage), as_json=as_json)
    tell_damage(damage)


@audit.command()
@folder_argument
@wanted_options
@json_option
@reported
def export(folder: Path, as_json: bool, **wanted: Any) -> None:  # noqa: ARG001  it is JSON always
    """Write all records to stdout, one JSON object on each line."""
    from capsule.broker.audit.reading import Damage, entries

    damage = Damage()
    _show(entries(folder, _wanted(wanted), damage), as_json=True)
    tell_damage(damage)


@audit.command()
@folder_argument
@click.option(
    "--key", metavar="KEY", help="The public key that it must be signed with (default: that of the directory)."
)
@json_option
@reported
def verify(folder: Path, key: str | None, as_json: bool) -> int:
    """Look whether any record was changed, removed, moved or cut off."""
    from capsule.broker.audit.keys import public_key
    from capsule.broker.audit.verify import verify as verified

    report = verified(folder, None if key is None else public_key(key))
    if as_json:
        found = asdict(report) | {"findings": [one._asdict() for one in report.findings], "whole": report.whole}
        click.echo(json.dumps(found))
    else:
        _tell(report, known=key is not None)
    return exits.Exit.OK if report.whole else exits.Exit.RAISED


def _wanted(options: dict[str, Any]) -> Wanted:
    from capsule.broker.audit.reading import Wanted

    return Wanted(**options)


def _show(found: Iterable[Entry], *, as_json: bool) -> None:
    """Without click, which flushes after each line: a trail may have millions."""
    for entry in found:
        sys.stdout.write(f"{json.dumps(entry.as_dict())}\n" if as_json else f"{_line(entry)}\n")
    sys.stdout.flush()


def tell_damage(damage: Damage) -> None:
    """On stderr: who reads a trail must not take what is left of it for all of it."""
    if damage.lines:
        click.echo(
            f"capsule: {damage.lines} lines of the trail are no records, and were left out (audit_damaged). "
            "`capsule audit verify` tells where.",
            err=True,
        )


def _line(entry: Entry) -> str:
    """A record as people read it. What others have chosen does not act on a terminal."""
    from capsule.broker.audit.reading import moment

    record = entry.record
    who = record.session_name or record.session
    parts = [
        f"{entry.sequence} {moment(entry)}",
        record.kind if record.kind != "call" else record.capability,
        f"{record.key}  {record.capability}".rstrip() if record.kind == "approval" else "",
        f"{record.outcome} ({record.code})" if record.code else record.outcome,
        f"{record.principal} in {who}" if who else record.principal,
        f"by {record.grant}, line {record.line}" if record.grant else "",
        f"{record.duration * 1000:.1f} ms" if record.duration else "",
        json.dumps(record.arguments) if record.arguments else "",
        record.why if record.code or record.kind != "call" else "",
        json.dumps(record.details) if record.details else "",
    ]
    return "  ".join(one_line(part) for part in parts if part)


def _tell(report: Report, *, known: bool) -> None:
    if report.findings:
        click.echo(tables.text(FINDINGS, report.findings, terminal=os.isatty(1)), nl=False, color=True)
    end = "closed there" if report.closed else "not closed"
    whole = "as it was written" if report.whole else "NOT as it was written (audit_damaged)"
    click.echo(
        f"{report.records} records in {report.files} files, {report.first} to {report.last}: {whole}, "
        f"signed up to {report.signed}, {end}"
    )
    trust = "which was given" if known else "which stands beside it: compare it with what you know, or give --key"
    click.echo(f"signed with {report.key}, {trust}")
