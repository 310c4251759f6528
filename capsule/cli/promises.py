"""`capsule promises`: what waits for somebody at a running node, and to answer it."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from capsule.cli import tables
from capsule.cli.operate import run_on, say, show_rows
from capsule.cli.options import address_option, json_option

if TYPE_CHECKING:
    from capsule import AsyncClient
    from capsule.client.promises import Action
    from capsule.node.info import PromiseSummary, SettledPromise

HEADINGS = ("ID", "KIND", "SESSION", "OWNER", "AGE", "LEFT", "PROMPT")
message_option = click.option("--message", metavar="TEXT", default="", help="Why; the code hears it.")
promise_argument = click.argument("promise", metavar="ID")


@click.group()
def promises() -> None:
    """Answer what code asks, from wherever you are: a running node keeps its questions as promises."""


@promises.command(name="list")
@address_option
@json_option
def list_(address: str, as_json: bool) -> int:
    """Show what waits for a verdict: questions of running code, and executions."""

    async def work(client: AsyncClient) -> None:
        found = await client.promises()
        show_rows(as_json, {"promises": [asdict(one) for one in found]}, HEADINGS, _rows(found))

    return run_on(address, as_json, work)


@promises.command(name="show")
@promise_argument
@address_option
@json_option
def show_promise(promise: str, address: str, as_json: bool) -> int:
    """Show all of one promise, settled or not."""

    async def work(client: AsyncClient) -> None:
        found = asdict(await client.promise(promise))
        rows: list[tuple[object, ...]] = [
            (name, _cell(value)) for name, value in found.items() if value not in (None, "")
        ]
        show_rows(as_json, found, ("", ""), rows)

    return run_on(address, as_json, work)


@promises.command()
@promise_argument
@click.argument("value")
@address_option
@json_option
def resolve(promise: str, value: str, address: str, as_json: bool) -> int:
    """Answer a question with VALUE; `-` reads a line from stdin, which no list of processes shows.

    Where the question has choices or a schema VALUE is JSON; text needs no quotes.
    What begins with `-` stands behind `--`.
    """
    answer = sys.stdin.readline().removesuffix("\n") if value == "-" else value
    return _settle(promise, "resolve", answer, "", address, as_json=as_json)


@promises.command()
@promise_argument
@message_option
@address_option
@json_option
def reject(promise: str, message: str, address: str, as_json: bool) -> int:
    """Say that a question gets no answer: the code gets EOFError."""
    return _settle(promise, "reject", None, message, address, as_json=as_json)


@promises.command()
@promise_argument
@message_option
@address_option
@json_option
def cancel(promise: str, message: str, address: str, as_json: bool) -> int:
    """Take a question back, or interrupt an execution."""
    return _settle(promise, "cancel", None, message, address, as_json=as_json)


def _settle(promise: str, action: Action, value: str | None, message: str, address: str, *, as_json: bool) -> int:
    async def work(client: AsyncClient) -> None:
        meant: Any = value
        if value is not None:
            asked = await client.promise(promise)
            if asked.state == "pending" and asked.terms.typed:
                meant = asked.terms.understand(value)
        settled = await client.settle_promise(promise, action, meant, message)
        data = {"promise": asdict(settled.promise), "decided": settled.decided}
        say(as_json, data, _words(settled))

    return run_on(address, as_json, work)


def _cell(value: object) -> object:
    """A value of a field: what is JSON, as whoever answers would write it."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value


def _words(settled: SettledPromise) -> str:
    if settled.promise.state == "pending":  # an execution, whose code has to end yet
        return "canceling" if settled.decided else "nothing runs"
    return settled.promise.state if settled.decided else f"{settled.promise.state} before"


def _rows(found: list[PromiseSummary]) -> list[tuple[object, ...]]:
    return [
        (
            one.id,
            one.kind,
            one.session,
            one.owner,
            tables.age(one.age),
            "-" if one.left is None else tables.age(one.left),
            one.prompt,
        )
        for one in found
    ]
