"""`capsule doctor`: what is wrong with this machine, or with the configuration, before it shows."""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from capsule.cli import exits, tables
from capsule.cli.options import json_option

if TYPE_CHECKING:
    from capsule.doctor import Finding

HEADINGS = ("CHECK", "", "FINDING")


@click.command()
@click.option(
    "--config",
    metavar="FILE",
    type=click.Path(),
    help="Configuration of the node (default: what CAPSULE_CONFIG names, or capsule.toml here).",
)
@click.option("--address", metavar="ADDRESS", help="A node that must answer (default: the configured one, if it runs).")
@json_option
def doctor(config: str | None, address: str | None, as_json: bool) -> int:
    """Look at configuration, directories, kernel, limits, clock, and at the node if it runs; change nothing.

    Exit code: 0 nothing is wrong, or only what warnings tell; 1 something that Capsule needs is missing.
    """
    from capsule.doctor import examine

    findings = asyncio.run(examine(config, address))
    failed = any(finding.severity == "error" for finding in findings)
    if as_json:
        click.echo(json.dumps({"ok": not failed, "findings": [asdict(finding) for finding in findings]}))
    else:
        rows = [(one.code, one.severity, _text(one)) for one in findings]
        click.echo(tables.text(HEADINGS, rows, terminal=os.isatty(1)), nl=False, color=True)
    return exits.Exit.RAISED if failed else exits.Exit.OK


def _text(finding: Finding) -> str:
    return f"{finding.message}. {finding.hint}" if finding.hint else finding.message
