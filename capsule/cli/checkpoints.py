"""`capsule save` and `capsule restore`: what a session of a running node has, to a file and back."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from capsule.cli import tables
from capsule.cli.operate import run_on, say
from capsule.cli.options import address_option, json_option
from capsule.text import one_line

if TYPE_CHECKING:
    from capsule import AsyncClient
    from capsule.client.answers import LeftOutName

LEFT_OUT = ("LEFT OUT", "TYPE", "WHERE", "REASON")

names_option = click.option(
    "--only", "names", metavar="NAME", multiple=True, help="Only this name; may be given more than once."
)
timeout_option = click.option(
    "--timeout",
    metavar="SECONDS",
    type=click.FloatRange(min=0, min_open=True),
    help="How long it may take once its turn has come.",
)


@click.command()
@click.argument("session", metavar="NAME")
@click.argument("path", type=click.Path(dir_okay=False))
@names_option
@timeout_option
@address_option
@json_option
def save(session: str, path: str, names: tuple[str, ...], timeout: float | None, address: str, as_json: bool) -> int:
    """Save what the code of session NAME (or of this id) of a running node has defined to a file, whoever has it."""

    async def work(client: AsyncClient) -> None:
        report = await client.save(session, path, names=names or None, timeout=timeout)
        data = asdict(report)
        del data["data"]
        count = f"{len(report.saved)} name{'s' * (len(report.saved) != 1)}"
        _tell(as_json, data, f"saved {count}, {tables.size(report.size)}", report.left_out)

    return run_on(address, as_json, work)


@click.command()
@click.argument("session", metavar="NAME")
@click.argument("path", type=click.Path(dir_okay=False))
@names_option
@timeout_option
@click.option("--allow-other-interpreter", is_flag=True, help="Data may come from another version of Python.")
@address_option
@json_option
def restore(
    session: str,
    path: str,
    names: tuple[str, ...],
    timeout: float | None,
    allow_other_interpreter: bool,
    address: str,
    as_json: bool,
) -> int:
    """Set the names in a file in session NAME (or of this id) of a running node, whoever has it."""

    async def work(client: AsyncClient) -> None:
        report = await client.restore(
            session, path, names=names or None, timeout=timeout, allow_other_interpreter=allow_other_interpreter
        )
        count = f"{len(report.restored)} name{'s' * (len(report.restored) != 1)}"
        _tell(as_json, asdict(report), f"restored {count}, {len(report.replaced)} of them replaced", report.left_out)

    return run_on(address, as_json, work)


def _tell(as_json: bool, data: dict[str, Any], text: str, left_out: list[LeftOutName]) -> None:
    say(as_json, data, text)
    if left_out and not as_json:
        rows: list[tuple[object, ...]] = [
            (one_line(one.name), one.type, one_line(one.where) or "-", one_line(one.reason)) for one in left_out
        ]
        click.echo(tables.text(LEFT_OUT, rows, terminal=os.isatty(1)), nl=False, color=True)
