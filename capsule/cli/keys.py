"""`capsule keys`: keys and tokens of the clients that come over the network."""

from __future__ import annotations

import functools
import json
import os
import re
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from capsule.cli import exits
from capsule_protocol.errors import ArgumentError, CapsuleError

if TYPE_CHECKING:
    from collections.abc import Callable

    from capsule.node.auth.keystore import KeyRecord

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_LONGEST = 100 * 366 * 86_400
"""Seconds that a key may last."""

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")


def _reported(command: Callable[..., None]) -> Callable[..., int]:
    """Errors of ours on stderr, and as the exit code."""

    @functools.wraps(command)
    def run(*arguments: Any, **options: Any) -> int:
        try:
            command(*arguments, **options)
        except CapsuleError as error:
            click.echo(f"capsule keys: {error}", err=True)
            return exits.of_error(error)
        return exits.Exit.OK

    return run


@click.group()
def keys() -> None:
    """Keys and tokens of clients, in $XDG_STATE_HOME/capsule/keys or ~/.local/state/capsule/keys.

    A node that runs takes every change at once. Exit code: 0 done, 2 wrong usage, 3 the key store cannot be used.
    """


@keys.command()
@click.argument("name")
@click.option(
    "--role",
    metavar="ROLE",
    type=click.Choice(["viewer", "user", "operator", "admin"]),
    default="user",
    show_default=True,
    help="What it may do: viewer, user, operator or admin.",
)
@click.option("--principal", metavar="NAME", help="On whose behalf it acts: sessions belong to it (default: NAME).")
@click.option("--expires", metavar="TIME", help="When it ends: 90s, 15m, 12h, 30d, or a date like 2030-01-31.")
@click.option("--token", is_flag=True, help="Make a token instead of a key.")
@click.option("--out", metavar="FILE", type=click.Path(path_type=Path), help="Write it to this new file, mode 0600.")
@json_option
@_reported
def new(
    name: str,
    role: str,
    principal: str | None,
    expires: str | None,
    token: bool,
    out: Path | None,
    as_json: bool,
) -> None:
    """Make a key for NAME and show it, this once: only its fingerprint is kept."""
    from capsule.node.auth.keystore import KeyStore
    from capsule.node.auth.tokens import issue

    now = time.time()
    until = None if expires is None else _time_of(expires, now)
    _check_free(out)
    kind = "token" if token else "key"
    record, word = issue(KeyStore(), now, name=name, principal=principal or name, role=role, kind=kind, expires=until)
    if out is not None:
        _write(out, word)
    shown = {} if out is not None else {"secret": word}
    if as_json:
        click.echo(json.dumps(_row(record, now) | shown | ({"file": str(out)} if out else {})))
    elif out is not None:
        click.echo(f"{kind} {name!r} of {record.principal} ({role}) is in {out}")
    else:
        click.echo(word)


@keys.command("list")
@json_option
@_reported
def list_(as_json: bool) -> None:
    """Show all keys and tokens; never a secret."""
    from capsule.node.auth.keystore import KeyStore

    now = time.time()
    rows = [_row(record, now) for record in KeyStore().records()]
    if as_json:
        click.echo(json.dumps(rows))
        return
    columns = ("name", "principal", "role", "kind", "state", "expires", "fingerprint")
    table = [columns, *(tuple(str(row[column] or "-")[:24] for column in columns) for row in rows)]
    widths = [max(len(line[number]) for line in table) for number in range(len(columns))]
    for line in table:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


@keys.command()
@click.argument("name")
@json_option
@_reported
def revoke(name: str, as_json: bool) -> None:
    """Let the key or token NAME in no more; its connections end within a second."""
    from capsule.node.auth.keystore import KeyStore

    now = time.time()
    record = KeyStore().revoke(name, now)
    click.echo(json.dumps(_row(record, now)) if as_json else f"{record.kind} {name!r} is revoked")


@keys.command()
@json_option
@_reported
def server(as_json: bool) -> None:
    """Show the node's public key, which each key and token holds already."""
    from capsule.keys import SERVER, encode
    from capsule.node.auth.keystore import KeyStore

    word = encode(SERVER, KeyStore().server_public())
    click.echo(json.dumps({"server_key": word}) if as_json else word)


def _row(record: KeyRecord, now: float) -> dict[str, Any]:
    times = {name: _text_of(getattr(record, name)) for name in ("created", "expires", "revoked")}
    return record.model_dump() | times | {"state": record.state(now)}


def _text_of(at: float | None) -> str | None:
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")


def _time_of(text: str, now: float) -> float:
    """The moment that `--expires` means; one that is over would make a key that never was one."""
    allowed = "90s, 15m, 12h, 30d, or a date like 2030-01-31, in the future"
    duration = re.fullmatch(r"(\d{1,10})([smhd])", text)
    try:
        if duration is not None:
            at = now + int(duration[1]) * _UNITS[duration[2]]
        else:
            date = datetime.fromisoformat(text)
            at = (date if date.tzinfo is not None else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError) as error:
        raise ArgumentError("expires", f"is {text[:80]!r}", allowed=allowed) from error
    if not now < at <= now + _LONGEST:
        raise ArgumentError("expires", f"is {text[:80]!r}", allowed=allowed)
    return at


def _check_free(out: Path | None) -> None:
    """Before a key is made that could not be written."""
    if out is not None and (out.exists() or not out.absolute().parent.is_dir()):
        raise ArgumentError("out", f"{out} exists, or its folder does not", allowed="a new file in a folder")


def _write(out: Path, word: str) -> None:
    descriptor = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(word + "\n")
