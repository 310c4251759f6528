"""`capsule store`: look at a store of durable promises, check it, compact it, write it out."""

from __future__ import annotations

import functools
import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from capsule.cli import exits, tables
from capsule.cli.configured import config_option
from capsule.cli.options import json_option
from capsule.text import one_line
from capsule_protocol.errors import CapsuleError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from capsule_bridge.records import Retention
    from capsule_bridge.sqlite.tools import StoreInfo

HEADINGS = ("CHECK", "", "FINDING")
_WRITTEN_AT_ONCE = 2**16
"""Characters of an export that are collected before they are written."""

path_argument = click.argument("path", required=False, type=click.Path(path_type=Path))


def store_file(path: Path | None, config: str | None) -> Path:
    """The database that a command is about: the named one, else that of the configuration."""
    if path is not None:
        return path
    from capsule.config import load
    from capsule.runtime import store_path

    return store_path(load(config))


def _reported(command: Callable[..., int | None]) -> Callable[..., int]:
    """An error of ours is told, as JSON if that was asked for, and becomes the exit code."""

    @functools.wraps(command)
    def run(*, as_json: bool = False, **options: Any) -> int:
        try:
            return command(as_json=as_json, **options) or exits.Exit.OK
        except CapsuleError as error:
            if as_json:
                click.echo(json.dumps({"error": error.as_dict()}, default=str))
            else:
                click.echo(f"capsule store: {one_line(error)}", err=True)
            return exits.of_error(error)

    return run


@click.group()
def store() -> None:
    """The durable promises of a node, in the file PATH, or the one that the node's configuration names.

    All but `compact` may be done while the node runs.

    Exit code: 0 done, 1 `check` found something lost or wrong, 2 wrong usage, 3 the store cannot be used.
    """


@store.command()
@path_argument
@config_option
@json_option
@_reported
def info(path: Path | None, config: str | None, as_json: bool) -> None:
    """Show what a store holds, how large it is, and who uses it."""
    from capsule_bridge.sqlite import tools

    found = tools.info(store_file(path, config), now=_now())
    if as_json:
        click.echo(json.dumps(asdict(found) | {"pending": found.pending}))
        return
    rows = list(_told(found))
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        click.echo(f"{name:{width}}  {one_line(value)}")


@store.command()
@path_argument
@config_option
@click.option("--thorough", is_flag=True, help="Compare indexes with their tables too, which takes longer.")
@json_option
@_reported
def check(path: Path | None, config: str | None, thorough: bool, as_json: bool) -> int:
    """Look whether all in a store fits together; repair nothing."""
    from capsule_bridge.sqlite import tools

    findings = tools.check(store_file(path, config), thorough=thorough)
    failed = any(finding.severity == "error" for finding in findings)
    if as_json:
        click.echo(json.dumps({"ok": not failed, "findings": [asdict(finding) for finding in findings]}))
    else:
        rows = [(one.code, one.severity, f"{one.message}. {one.hint}" if one.hint else one.message) for one in findings]
        click.echo(tables.text(HEADINGS, rows, terminal=os.isatty(1)), nl=False, color=True)
    return exits.Exit.RAISED if failed else exits.Exit.OK


@store.command()
@path_argument
@config_option
@click.option(
    "--results",
    metavar="HOURS",
    type=click.FloatRange(min=0),
    help="Forget verdicts and logs that are older (default: as configured).",
)
@click.option(
    "--tombstones",
    metavar="HOURS",
    type=click.FloatRange(min=0),
    help="Remember so long that there was a verdict (default: as configured).",
)
@json_option
@_reported
def compact(
    path: Path | None, config: str | None, results: float | None, tombstones: float | None, as_json: bool
) -> None:
    """Forget what is old, and give the room back to the disk; refused while a node uses the store."""
    from capsule_bridge.sqlite import tools

    done = tools.compact(store_file(path, config), now=_now(), retention=_retention(config, results, tombstones))
    if as_json:
        click.echo(json.dumps(asdict(done)))
        return
    click.echo(
        f"{tables.size(done.before.total)} before, {tables.size(done.after.total)} now; "
        f"{done.forgotten} promises forgotten, {done.timed_out} timed out"
    )


@store.command()
@path_argument
@config_option
@click.option("--decode", is_flag=True, help="Show values as JSON where that loses nothing, instead of as base64.")
@_reported
def export(path: Path | None, config: str | None, decode: bool, as_json: bool) -> int:  # noqa: ARG001  it is JSON always
    """Write all promises and events to stdout, one JSON object on each line."""
    from capsule_bridge.sqlite import tools

    records = tools.export(store_file(path, config), now=_now(), decode=decode)
    try:
        _write(f"{json.dumps(record, ensure_ascii=True, allow_nan=False)}\n" for record in records)
    except BrokenPipeError:
        # Who reads has seen enough. The interpreter flushes once more while it ends, and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return exits.Exit.BROKEN_PIPE
    return exits.Exit.OK


def _write(lines: Iterable[str]) -> None:
    """Without click, which flushes after each line: a store may have millions."""
    waiting, size = [], 0
    for line in lines:
        waiting.append(line)
        size += len(line)
        if size >= _WRITTEN_AT_ONCE:
            sys.stdout.write("".join(waiting))
            waiting, size = [], 0
    sys.stdout.write("".join(waiting))
    sys.stdout.flush()


def _told(found: StoreInfo) -> Iterable[tuple[str, str]]:
    yield "path", found.path
    yield "schema", str(found.schema)
    yield "sqlite", found.sqlite
    yield "used by", f"process {found.process or '?'} ({found.use or '?'})" if found.process or found.use else "nobody"
    yield "promises", str(sum(found.promises.values()))
    for state, number in found.promises.items():
        oldest = "" if found.oldest_pending is None else f", the oldest for {tables.age(found.oldest_pending / 1000)}"
        yield f"  {state}", f"{number}{oldest if state == 'pending' else ''}"
    yield "events", str(found.events)
    yield "tombstones", str(found.tombstones)
    sizes = found.sizes
    yield "database", f"{tables.size(sizes.database)}, of which {tables.size(sizes.free)} hold nothing"
    yield "log", tables.size(sizes.log)
    yield "large values", f"{tables.size(sizes.values)} in {sizes.value_files} files"


def _retention(config: str | None, results: float | None, tombstones: float | None) -> Retention:
    """In hours where that is given; the configuration has seconds."""
    from capsule.config import load
    from capsule_bridge.records import HOUR, Retention

    configured = load(config).store
    return Retention(
        int(configured.results * 1000 if results is None else results * HOUR),
        int(configured.tombstones * 1000 if tombstones is None else tombstones * HOUR),
    )


def _now() -> int:
    return int(time.time() * 1000)
