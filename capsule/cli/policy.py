"""`capsule policy`: look at a policy, check it, and ask it what it would allow, and by which line."""

from __future__ import annotations

import asyncio
import json
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from capsule.cli import exits, tables
from capsule.cli.configured import config_option
from capsule.cli.options import json_option
from capsule.cli.policy_shown import described, judged_as_data, say, tell_changes, tell_policy
from capsule.cli.reported import reported
from capsule.text import one_line
from capsule_protocol.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

    from capsule.broker.explaining import Asked
    from capsule.broker.own import Own
    from capsule.broker.policy import Policy
    from capsule.broker.registry import Registry
    from capsule.broker.sdk import Provider

T = TypeVar("T")
READINGS = ("LINE", "", "NAME", "")

file_argument = click.argument("file", required=False, type=click.Path(path_type=Path))


def provider_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--provider`, passed as `allowed`, and `--config`."""
    option = click.option(
        "--provider",
        "allowed",
        metavar="MODULE",
        multiple=True,
        help="A module from which providers of others may come, beside those of the configuration. Repeatable.",
    )
    return option(config_option(command))


def call_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say which call is meant."""
    trail = click.Path(exists=True, file_okay=False, path_type=Path)
    options = (
        click.option("--capability", metavar="NAME", help="What is called: PROVIDER.OPERATION."),
        click.option("--principal", metavar="NAME", default="", help="Whose session calls."),
        click.option("--environment", metavar="NAME", default="default", help="The environment of the session."),
        click.option("--session", metavar="NAME", default="", help="The name of the session."),
        click.option(
            "--argument",
            "arguments",
            metavar="NAME=VALUE",
            multiple=True,
            help="An argument of the call, as text or JSON; without any, it is left open which there are. Repeatable.",
        ),
        click.option(
            "--bytes",
            "size",
            metavar="NUMBER",
            type=click.IntRange(min=0),
            default=0,
            help="Of the body of the request.",
        ),
        click.option("--audit", metavar="DIR", type=trail, help="Take calls from this audit trail instead."),
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.group()
def policy() -> None:
    """Policies: which calls code may make, in the TOML file FILE, or the one that the configuration names.

    Nothing of a running node is changed.

    Exit code: 0 allowed or nothing wrong, 1 the call would be denied, 2 wrong usage or a policy that is refused.
    """


@policy.command()
@file_argument
@provider_options
@json_option
@reported
def show(file: Path | None, allowed: tuple[str, ...], config: str | None, as_json: bool) -> None:
    """Show what a policy says, with what comes from its pack."""
    place, registry = _configured(file, allowed, config)
    found = _load(place, registry)
    if as_json:
        click.echo(json.dumps(described(found)))
    else:
        tell_policy(found)


@policy.command()
@file_argument
@click.option(
    "--scopes", is_flag=True, help="Also ask the providers whether they can serve the scopes on this machine."
)
@provider_options
@json_option
@reported
def check(file: Path | None, scopes: bool, allowed: tuple[str, ...], config: str | None, as_json: bool) -> int:
    """Tell all that is wrong with a policy, not only the first; also which secrets the configuration does not have."""
    complaints: list[dict[str, Any]] = []
    file, registry = _configured(file, allowed, config)
    try:
        found = _load(file, registry, _secrets(config))
        complaints = _ask(registry, partial(_unserved, found, _own(file, config))) if scopes else []
    except ArgumentError as error:
        complaints = error.details["complaints"]
    if as_json:
        click.echo(json.dumps({"file": str(file), "complaints": complaints}))
    for one in () if as_json else complaints:
        place = f"{file}:{one['line']}" if one["line"] else str(file)
        words = [place, one["option"], one["message"]]
        allowed_ = f"; allowed: {one['allowed']}" if one["allowed"] else ""
        click.echo(f"capsule policy check: {': '.join(one_line(word) for word in words if word)}{allowed_}", err=True)
    if complaints:
        return exits.Exit.USAGE
    if not as_json:
        click.echo(f"{file}: nothing is wrong")
    return exits.Exit.OK


@policy.command()
@file_argument
@call_options
@click.option(
    "--record", metavar="NUMBER", type=click.IntRange(min=1), help="Of the audit trail, the record to explain."
)
@provider_options
@json_option
@reported
def explain(
    file: Path | None, record: int | None, allowed: tuple[str, ...], config: str | None, as_json: bool, **call: Any
) -> int:
    """Tell whether a call would be allowed, by which line, and what each line has to do with it."""
    from capsule.broker.explaining import judge, readings

    place, registry = _configured(file, allowed, config)
    found = _load(place, registry)
    asked = _recorded(call["audit"], record) if record is not None else _asked(**call)
    judged = _ask(registry, partial(judge, found, asked=asked))
    lines = readings(found, asked.query)
    if as_json:
        told = [reading._asdict() for reading in lines]
        click.echo(json.dumps({"query": asked.query._asdict(), **judged_as_data(judged), "lines": told}))
    else:
        say(judged)
        if lines:
            rows = [(one.line, one.kind, one.name, one.why) for one in lines]
            click.echo(tables.text(READINGS, rows, terminal=os.isatty(1)), nl=False, color=True)
        else:
            click.echo(f"No line names {one_line(asked.query.capability)}.")
    return exits.Exit.OK if judged.allowed else exits.Exit.RAISED


@policy.command()
@file_argument
@call_options
@provider_options
@json_option
@reported
def simulate(file: Path | None, allowed: tuple[str, ...], config: str | None, as_json: bool, **call: Any) -> int:
    """Tell whether a call would be allowed; or, of all calls in an audit trail, which would end otherwise."""
    from capsule.broker.explaining import judge

    place, registry = _configured(file, allowed, config)
    found = _load(place, registry)
    if call["audit"] is not None:
        from capsule.broker.audit.reading import Damage, entries
        from capsule.broker.replaying import replay
        from capsule.cli.audit import tell_damage

        damage = Damage()
        changes = _ask(registry, partial(replay, found, entries=entries(call["audit"], damage=damage)))
        tell_changes(changes, as_json=as_json)
        tell_damage(damage)
        return exits.Exit.OK
    judged = _ask(registry, partial(judge, found, asked=_asked(**call)))
    if as_json:
        click.echo(json.dumps(judged_as_data(judged)))
    else:
        say(judged)
    return exits.Exit.OK if judged.allowed else exits.Exit.RAISED


def _configured(file: Path | None, allowed: tuple[str, ...], config: str | None) -> tuple[Path, Registry]:
    """The policy that is meant, and the providers that it may be about."""
    from capsule.broker.registry import load
    from capsule.config import load as configuration

    broker = configuration(config).broker
    place = file or broker.policy
    if place is None:
        raise click.UsageError("Name a policy: FILE, or `policy` in [broker] of the configuration.")
    return place, load((*broker.providers, *allowed))


def _load(file: Path, registry: Registry, secrets: Collection[str] | None = None) -> Policy:
    from capsule.broker.policy import load

    return load(file, registry.descriptors(), secrets)


def _secrets(config: str | None) -> Collection[str]:
    """Those that a node with this configuration has, by name."""
    from capsule.config import load as configuration

    return configuration(config).broker.secrets.keys()


def _ask(registry: Registry, question: Callable[[dict[str, Provider]], Awaitable[T]]) -> T:
    """What comes of asking the providers. Those that run in processes of their own end with that."""

    async def ask() -> T:
        try:
            return await question({name: one.provider for name, one in registry.found.items()})
        finally:
            await registry.close()

    return asyncio.run(ask())


def _asked(**call: Any) -> Asked:
    from capsule.broker.explaining import Asked
    from capsule.broker.policy import Query

    if call["capability"] is None:
        raise click.UsageError("Name a call with --capability, or an audit trail with --audit.")
    arguments = {}
    for argument in call["arguments"]:
        name, assigned, value = argument.partition("=")
        if not assigned:
            raise click.UsageError(f"{argument!r} is not NAME=VALUE.")
        arguments[name] = value
    query = Query(call["capability"], call["principal"], call["environment"], call["session"])
    return Asked(query, arguments if call["arguments"] else None, call["size"])


def _recorded(audit: Path | None, number: int) -> Asked:
    from capsule.broker.audit.reading import entries
    from capsule.broker.replaying import asked

    if audit is None:
        raise click.UsageError("Name the audit trail of the record with --audit.")
    entry = next((entry for entry in entries(audit) if entry.sequence == number), None)
    if entry is None or entry.record.kind != "call":
        raise ArgumentError("record", f"there is no call with the number {number}", allowed="capsule audit query tells")
    return asked(entry.record)


def _own(file: Path, config: str | None) -> tuple[Own, ...]:
    """What belongs to a node with this configuration and this policy."""
    from capsule.broker.own import own_of
    from capsule.config import load as configuration

    loaded = configuration(config)
    return own_of(loaded.model_copy(update={"broker": loaded.broker.model_copy(update={"policy": file})}))


async def _unserved(found: Policy, own: tuple[Own, ...], providers: dict[str, Provider]) -> list[dict[str, Any]]:
    """What the providers say of the scopes, and which roots have in them what is the node's own."""
    from capsule.broker.own import check_roots
    from capsule.broker.sdk import checked

    wrong = []
    for rule in found.rules:
        for name, grant in rule.by_provider.items():
            try:
                check_roots(grant.scope, own, grant.name)
                await checked(providers[name], grant.scope)
            except ArgumentError as error:
                option = f"grants.{grant.name}.scope"
                wrong.append({"line": rule.line, "option": option, "message": error.message, "allowed": ""})
    return wrong
