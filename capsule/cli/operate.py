"""Operators' commands on a running node: `sessions`, `interrupt`, `kill`, `pool`, `drain`."""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from capsule.cli import exits, tables
from capsule.cli.options import address_option, json_option
from capsule.text import one_line
from capsule_protocol.errors import CapsuleError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from capsule import AsyncClient
    from capsule.node.info import NodeInfo, SessionSummary

SESSIONS = ("NAME", "ID", "OWNER", "ENVIRONMENT", "STATE", "PID", "AGE", "MEMORY", "EXECUTIONS", "WAITING", "ATTACHED")
POOLS = ("ENVIRONMENT", "STATE", "IDLE", "IN USE", "STARTING", "WAITING", "HITS", "BREAKER")


@click.command()
@click.option("--watch", is_flag=True, help="Show them again and again, until Ctrl-C.")
@click.option(
    "--interval",
    metavar="SECONDS",
    type=click.FloatRange(min=0.1),
    default=1.0,
    show_default=True,
    help="With --watch: the time between two looks.",
)
@address_option
@json_option
def sessions(watch: bool, interval: float, address: str, as_json: bool) -> int:
    """Show the sessions of a running node."""

    async def once(client: AsyncClient) -> None:
        found = await client.sessions()
        show_rows(as_json, {"sessions": [asdict(one) for one in found]}, SESSIONS, _rows(found))

    if not watch:
        return run_on(address, as_json, once)
    try:
        return run_on(address, as_json, lambda client: _watch(client, interval, as_json=as_json))
    except KeyboardInterrupt:
        return exits.Exit.OK


@click.command()
@click.argument("name")
@address_option
@json_option
def interrupt(name: str, address: str, as_json: bool) -> int:
    """Interrupt what the session NAME (or of this id) of a running node runs, whoever has it."""

    async def work(client: AsyncClient) -> None:
        done = await client.interrupt(name)
        say(as_json, {"name": name, "interrupted": done}, "interrupted" if done else "nothing runs")

    return run_on(address, as_json, work)


@click.command()
@click.argument("name")
@address_option
@json_option
def kill(name: str, address: str, as_json: bool) -> int:
    """End the session NAME (or of this id) of a running node with all its processes, whoever has it."""

    async def work(client: AsyncClient) -> None:
        await client.kill(name)
        say(as_json, {"name": name, "killed": True}, "killed")

    return run_on(address, as_json, work)


@click.command()
@address_option
@json_option
def pool(address: str, as_json: bool) -> int:
    """Show the pools of a running node: one for each environment."""

    async def work(client: AsyncClient) -> None:
        info = await client.info()
        show_rows(as_json, asdict(info), POOLS, _pools(info))

    return run_on(address, as_json, work)


@click.command()
@click.option("--no-wait", is_flag=True, help="Return as soon as the node has begun to drain.")
@address_option
@json_option
def drain(no_wait: bool, address: str, as_json: bool) -> int:
    """Have a running node end as SIGTERM does, and wait until it has: nothing new is taken, what runs may end."""

    async def work(client: AsyncClient) -> None:
        await client.drain(wait=not no_wait)
        say(as_json, {"draining": True, "ended": not no_wait}, "draining" if no_wait else "the node has ended")

    return run_on(address, as_json, work)


def run_on(address: str, as_json: bool, work: Callable[[AsyncClient], Awaitable[None]]) -> int:
    """Do it with a client of the node; an error is told, and becomes the exit code."""
    from capsule import AsyncClient

    async def main() -> None:
        async with AsyncClient(address) as client:
            await work(client)

    try:
        asyncio.run(main())
    except CapsuleError as error:
        if as_json:
            click.echo(json.dumps({"error": error.as_dict()}, default=str))
        else:
            click.echo(f"capsule: {one_line(error)}", err=True)
        return exits.of_error(error)
    return exits.Exit.OK


async def _watch(client: AsyncClient, interval: float, *, as_json: bool) -> None:
    """On a terminal the table is replaced, else one follows another."""
    if as_json or not os.isatty(1):
        while True:
            found = await client.sessions()
            show_rows(as_json, {"sessions": [asdict(one) for one in found]}, SESSIONS, _rows(found))
            await asyncio.sleep(interval)
    from rich.live import Live

    with Live(auto_refresh=False) as live:
        while True:
            live.update(tables.table(SESSIONS, _rows(await client.sessions())), refresh=True)
            await asyncio.sleep(interval)


def show_rows(as_json: bool, data: dict[str, Any], headings: tuple[str, ...], rows: list[tuple[object, ...]]) -> None:
    """A table, or JSON."""
    if as_json:
        click.echo(json.dumps(data, default=str))
    else:
        click.echo(tables.text(headings, rows, terminal=os.isatty(1)), nl=False, color=True)


def say(as_json: bool, data: dict[str, Any], text: str) -> None:
    """Say it in words, or as JSON."""
    click.echo(json.dumps(data) if as_json else text)


def _rows(found: list[SessionSummary]) -> list[tuple[object, ...]]:
    return [
        (
            one.name,
            one.id,
            one.owner,
            one.environment,
            one.state,
            one.pid or "-",
            tables.age(one.age),
            tables.size(one.memory),
            one.executions,
            one.waiting,
            "yes" if one.attached else "no",
        )
        for one in sorted(found, key=lambda one: -one.age)
    ]


def _pools(info: NodeInfo) -> list[tuple[object, ...]]:
    return [
        (
            name,
            one.state,
            f"{one.idle} of {one.min_idle}",
            f"{one.in_use} of {one.max_sessions}",
            one.starting,
            one.waiting,
            f"{one.stats.hit_rate:.0%}",
            f"{one.breaker.state}: {one.breaker.cause}" if one.breaker.cause else one.breaker.state,
        )
        for name, one in sorted(info.pools.items())
    ]
