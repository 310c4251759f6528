"""The options that every command which opens a session has."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from capsule_protocol.errors import CapsuleError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from capsule.config import NodeConfig

CONFIG = "capsule.config"
"""Where one option leaves its value for another."""


def _environment_variables(
    _context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]
) -> dict[str, str]:
    variables = {}
    for value in values:
        name, assigned, content = value.partition("=")
        if not name:
            raise click.BadParameter(f"{value!r} is neither NAME=VALUE nor NAME.")
        if not assigned and name not in os.environ:
            raise click.BadParameter(f"{name!r} is not set here; give {name}=VALUE.")
        variables[name] = content if assigned else os.environ[name]
    return variables


def session_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--config`, `--environment`, `--env` and `--cwd`, passed as `config`, `environment`, `env` and `cwd`."""
    folder = click.Path(exists=True, file_okay=False, resolve_path=True)
    options = (
        click.option(
            "--config",
            metavar="FILE",
            type=click.Path(exists=True, dir_okay=False),
            help="Configuration of the environments (default: what CAPSULE_CONFIG names, or capsule.toml here).",
        ),
        click.option("--environment", metavar="NAME", default="default", help="Environment of the session."),
        click.option(
            "--env",
            metavar="NAME[=VALUE]",
            multiple=True,
            callback=_environment_variables,
            help="Environment variable for the code; without a value, ours is passed on. Repeatable.",
        ),
        click.option(
            "--cwd",
            metavar="DIR",
            type=folder,
            help="Working directory of the code (default: ours; for a notebook, its folder).",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def one_session(path: str | None) -> NodeConfig:
    """The configuration for a command that opens one session: none is made ahead for a second."""
    from capsule.config import load

    config = load(path)
    environments = {name: one.model_copy(update={"min_idle": 0}) for name, one in config.environments.items()}
    return config.model_copy(update={"environments": environments})


def working_directory(config: NodeConfig, environment: str, folder: Path) -> str | None:
    """Where the code of a command works if nobody says: in this folder, but in a sandbox in the session's own."""
    found = config.environments.get(environment)
    return str(folder) if found is None or found.sandbox == "none" else None


def address_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--address` and `--config`, passed as the `address` of the node that the command talks to."""
    at = click.option(
        "--address",
        metavar="ADDRESS",
        callback=_address,
        help="Address of the node; auto is this user's own (default: the node of the configuration).",
    )
    return eager_config_option(at(command))


def eager_config_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--config`, which callbacks of other options and arguments find at CONFIG of `context.meta`."""
    return click.option(
        "--config",
        metavar="FILE",
        type=click.Path(exists=True, dir_okay=False),
        is_eager=True,
        expose_value=False,
        callback=_remember,
        help="Configuration of the node (default: what CAPSULE_CONFIG names, or capsule.toml here).",
    )(command)


def _remember(context: click.Context, _parameter: click.Parameter, config: str | None) -> None:
    context.meta[CONFIG] = config


def _address(context: click.Context, _parameter: click.Parameter, address: str | None) -> str:
    """The address that was given, else where the configured node listens."""
    from capsule.config import load
    from capsule.runtime import node_address

    if address is not None:
        return address
    try:
        return node_address(load(context.meta[CONFIG]))
    except CapsuleError as error:
        raise click.UsageError(f"{error} Or name the node with --address.", context) from error


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
"""For programs that read what a command prints."""
