"""`capsule config`: show the configuration and where it comes from, check it, and tell its schema."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from capsule.cli import exits
from capsule.cli.configured import configured, given
from capsule_protocol.errors import ArgumentError

if TYPE_CHECKING:
    from capsule.settings.loading import Setting


@click.group()
def config() -> None:
    """The configuration of the node: flags come before variables CAPSULE_…, these before capsule.toml."""


@config.command()
@configured
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object with all values.")
def show(config: str | None, as_json: bool, **flags: Any) -> int:
    """Print every value and where it comes from. Exit code: 2 if the configuration is wrong."""
    from capsule.settings.loading import read

    try:
        loaded = read(config, given(flags))
    except ArgumentError as error:
        return _refuse("show", error, as_json=as_json)
    settings = list(loaded.settings())
    if as_json:
        file = None if loaded.file is None else str(loaded.file)
        click.echo(json.dumps({"file": file, "settings": [_entry(setting) for setting in settings]}))
        return exits.Exit.OK
    lines = [(f"{'.'.join(setting.path)} = {_text(setting.value)}", setting.place) for setting in settings]
    width = min(MAX_WIDTH, max(len(left) for left, _ in lines))
    for left, place in lines:
        click.echo(f"{left:{width}}  # {place}")
    return exits.Exit.OK


@config.command()
@click.argument("file", required=False, type=click.Path(exists=True, dir_okay=False))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object with all that is wrong.")
def check(file: str | None, as_json: bool) -> int:
    """Check FILE, or the file that `capsule serve` would find, and the variables CAPSULE_….

    Tells all that is wrong, not only the first. Exit code: 0 nothing, 2 something.
    """
    from capsule.settings.loading import read

    try:
        loaded = read(file)
    except ArgumentError as error:
        return _refuse("check", error, as_json=as_json)
    found = None if loaded.file is None else str(loaded.file)
    if as_json:
        click.echo(json.dumps({"file": found, "complaints": []}))
    else:
        click.echo(f"{found or 'no file: the defaults'}: nothing is wrong")
    return exits.Exit.OK


@config.command()
def schema() -> None:
    """Print the JSON Schema of capsule.toml, with which editors complete and check it."""
    from capsule.settings.pages import schema as text

    click.echo(text(), nl=False)


MAX_WIDTH = 60
"""Columns for values; the origin of a longer one stands further to the right."""


def _refuse(command: str, error: ArgumentError, *, as_json: bool) -> int:
    """Tell all that is wrong, each in a line of its own."""
    alone = {"place": "", "option": error.argument, "code": error.code, "message": error.message}
    complaints = error.details.get("complaints", [alone])
    if as_json:
        click.echo(json.dumps({"complaints": complaints}))
    else:
        for complaint in complaints:
            click.echo(f"capsule config {command}: {complaint['message']} ({complaint['code']})", err=True)
    return exits.of_error(error)


def _entry(setting: Setting) -> dict[str, Any]:
    return {
        "option": ".".join(setting.path),
        "value": _plain(setting.value),
        "origin": setting.origin,
        "place": setting.place,
    }


def _text(value: Any) -> str:
    return "none" if value is None else json.dumps(_plain(value), ensure_ascii=False)


def _plain(value: Any) -> Any:
    """The value as JSON has it; a secret stays one."""
    from pydantic import SecretStr
    from pydantic_core import to_jsonable_python

    if isinstance(value, SecretStr):  # an address without its password says something, and JSON's own stars do not
        return str(value)
    return to_jsonable_python(value)
