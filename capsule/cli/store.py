"""`capsule store`: look at a store of durable promises, check it, compact it, write it out."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from capsule.cli import exits, tables
from capsule.cli.configured import config_option
from capsule.cli.options import json_option
from capsule.cli.reported import reported
from capsule.text import one_line
from capsule_bridge.places import POSTGRES, RESONATE, shown
from capsule_protocol.errors import ArgumentError

if TYPE_CHECKING:
    from types import ModuleType

    from capsule_bridge.findings import StoreFinding
    from capsule_bridge.postgres.tools import DatabaseInfo
    from capsule_bridge.records import Retention
    from capsule_bridge.sqlite.tools import StoreInfo
    from capsule_bridge.telling import Record

Rows = Iterator[tuple[str, str]]
HEADINGS = ("CHECK", "", "FINDING")
_WRITTEN_AT_ONCE = 2**16
"""Characters of an export that are collected before they are written."""

_reported = partial(reported, program="capsule store")
path_argument = click.argument("path", required=False, metavar="[PATH|URL]")


def place_of(path: str | None, config: str | None) -> Path | str:
    """The store that a command is about, the named one or that of the configuration: a file, or a database's URL.

    Of a store at a Resonate server it is the file beside it, which has all but what others decided meanwhile.
    """
    if path is not None:
        return _named(path)
    from capsule.config import load
    from capsule.runtime import store_path

    loaded = load(config)
    url = None if loaded.store.url is None else loaded.store.url.get_secret_value()
    return url if url is not None and url.startswith(POSTGRES) else store_path(loaded)


def _named(path: str) -> Path | str:
    if path.startswith(POSTGRES):
        return path
    if path.startswith(RESONATE):
        text = f"{shown(path)!r:.200} is a Resonate server: what its node knows is in a file on the node's machine"
        raise ArgumentError("path", text, allowed="the PATH of that file, or nothing where the node's configuration is")
    if "://" in path:
        raise ArgumentError("path", f"is {shown(path)!r:.200}", allowed="a PATH, or postgresql://USER@HOST/DATABASE")
    return Path(path)


@click.group()
def store() -> None:
    """The durable promises of a node, in the file PATH, in the database at URL, or where the configuration says.

    All but `compact` may be done while the node runs.

    Exit code: 0 done, 1 `check` found something lost or wrong, 2 wrong usage, 3 the store cannot be used.
    """


@store.command()
@path_argument
@config_option
@json_option
@_reported
def info(path: str | None, config: str | None, as_json: bool) -> None:
    """Show what a store holds, how large it is, and who uses it."""
    found, rows = _looked_at(place_of(path, config))
    if as_json:
        click.echo(json.dumps(asdict(found) | {"pending": found.pending}))
        return
    told = list(rows)
    width = max(len(name) for name, _ in told)
    for name, value in told:
        click.echo(f"{name:{width}}  {one_line(value)}")


@store.command()
@path_argument
@config_option
@click.option("--thorough", is_flag=True, help="Compare indexes and large values too, which takes longer.")
@json_option
@_reported
def check(path: str | None, config: str | None, thorough: bool, as_json: bool) -> int:
    """Look whether all in a store fits together; repair nothing."""
    place = place_of(path, config)
    findings = _check_database(place) if isinstance(place, str) else _check_file(place, thorough=thorough)
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
    path: str | None, config: str | None, results: float | None, tombstones: float | None, as_json: bool
) -> None:
    """Forget what is old, and give the room back to the disk; refused while a node uses the store."""
    from capsule_bridge.sqlite import tools

    place = place_of(path, config)
    if isinstance(place, str):
        text = "a database gives room back by itself, and its nodes forget what is old"
        raise ArgumentError("path", text, allowed="the file of a store", code="unsupported")
    done = tools.compact(place, now=_now(), retention=_retention(config, results, tombstones))
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
def export(path: str | None, config: str | None, decode: bool, as_json: bool) -> None:  # noqa: ARG001  it is JSON always
    """Write all promises and events to stdout, one JSON object on each line."""
    place = place_of(path, config)
    write = Writer()
    try:
        if isinstance(place, str):
            asyncio.run(_export_database(place, write, decode=decode))
        else:
            _export_file(place, write, decode=decode)
    finally:
        write.flush()  # what could be read, also if something could not


class Writer:
    """Writes records without click, which flushes after each line: a store may have millions."""

    def __init__(self) -> None:
        self._waiting: list[str] = []
        self._size = 0

    def __call__(self, record: Record) -> None:
        """One line."""
        line = f"{json.dumps(record, ensure_ascii=True, allow_nan=False)}\n"
        self._waiting.append(line)
        self._size += len(line)
        if self._size >= _WRITTEN_AT_ONCE:
            self._write()

    def flush(self) -> None:
        """All of it."""
        self._write()
        sys.stdout.flush()

    def _write(self) -> None:
        sys.stdout.write("".join(self._waiting))
        self._waiting, self._size = [], 0


def _looked_at(place: Path | str) -> tuple[StoreInfo | DatabaseInfo, Rows]:
    if isinstance(place, str):
        found: DatabaseInfo = asyncio.run(_database_tools().info(place, now=_now()))
        return found, _told_of_database(found)
    from capsule_bridge.sqlite import tools

    info = tools.info(place, now=_now())
    return info, _told_of_file(info)


def _check_file(path: Path, *, thorough: bool) -> list[StoreFinding]:
    from capsule_bridge.sqlite import tools

    return tools.check(path, thorough=thorough)


def _export_file(path: Path, write: Writer, *, decode: bool) -> None:
    from capsule_bridge.sqlite import tools

    for record in tools.export(path, now=_now(), decode=decode):
        write(record)


def _check_database(url: str) -> list[StoreFinding]:
    found: list[StoreFinding] = asyncio.run(_database_tools().check(url))
    return found


async def _export_database(url: str, write: Writer, *, decode: bool) -> None:
    async with aclosing(_database_tools().export(url, now=_now(), decode=decode)) as records:
        async for record in records:
            write(record)


def _database_tools() -> ModuleType:
    """Raises StoreError if the driver is not there."""
    from capsule_bridge.durability import needs

    with needs("asyncpg", "postgres", "a store in PostgreSQL"):
        from capsule_bridge.postgres import tools
    return tools


def _told_of_file(found: StoreInfo) -> Rows:
    yield "path", found.path
    yield "schema", str(found.schema)
    yield "sqlite", found.sqlite
    yield "used by", f"process {found.process or '?'} ({found.use or '?'})" if found.process or found.use else "nobody"
    yield from _told(found)
    sizes = found.sizes
    yield "database", f"{tables.size(sizes.database)}, of which {tables.size(sizes.free)} hold nothing"
    yield "log", tables.size(sizes.log)
    yield "large values", f"{tables.size(sizes.values)} in {sizes.value_files} files"


def _told_of_database(found: DatabaseInfo) -> Rows:
    yield "url", found.path
    yield "schema", str(found.schema)
    yield "postgresql", found.postgresql
    for number, (name, lives) in enumerate(found.nodes.items()):
        yield "used by" if number == 0 else "", f"node {name}{'' if lives else ', which is silent'}"
    if not found.nodes:
        yield "used by", "nobody"
    yield from _told(found)
    yield "tables", tables.size(found.size)


def _told(found: StoreInfo | DatabaseInfo) -> Rows:
    yield "promises", str(sum(found.promises.values()))
    for state, number in found.promises.items():
        oldest = "" if found.oldest_pending is None else f", the oldest for {tables.age(found.oldest_pending / 1000)}"
        yield f"  {state}", f"{number}{oldest if state == 'pending' else ''}"
    yield "events", str(found.events)
    yield "tombstones", str(found.tombstones)


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
