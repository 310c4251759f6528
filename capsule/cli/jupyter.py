"""`capsule jupyter`: JupyterLab, with sessions as its kernels."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from typing import NoReturn

import click

from capsule.cli import exits
from capsule.platforms import check_node
from capsule_protocol.errors import CapsuleError, NodeError

LAB = "jupyterlab"


@click.command(context_settings={"ignore_unknown_options": True})
@click.option("--environment", metavar="NAME", default="default", help="Environment of the kernels.")
@click.option(
    "--config",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, resolve_path=True),
    help="Configuration of the environments (default: none).",
)
@click.option(
    "--directory",
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False, resolve_path=True),
    help="Directory of the node that is to run them (default: your own node).",
)
@click.argument("arguments", metavar="[-- ARGS]", nargs=-1, type=click.UNPROCESSED)
def jupyter(environment: str, config: str | None, directory: str | None, arguments: tuple[str, ...]) -> int:
    """Start JupyterLab so that its plain Python kernels are sessions; ARGS are its own.

    Nothing is installed or changed for that: each Jupyter that is started otherwise has the kernels that it had.
    Exit code: that of JupyterLab; 2 wrong usage, 3 JupyterLab is not installed.
    """
    try:
        check_node()
        _check(environment, config, directory)
    except CapsuleError as error:
        click.echo(f"capsule jupyter: {error}", err=True)
        return exits.of_error(error)
    settings = {"environment": environment, "config_file": config, "directory": directory}
    options = [f"--CapsuleProvisioner.{name}={value}" for name, value in settings.items() if value]
    return _become([sys.executable, "-m", LAB, *options, *arguments])


def _check(environment: str, config: str | None, directory: str | None) -> None:
    from capsule.jupyter.kernelspecs import check_environment

    if directory is None:
        check_environment(environment, config)
    if find_spec(LAB) is None:
        hint = "Install it there: pip install 'capsule-exec[jupyter]'"
        raise NodeError("unsupported", f"{sys.executable} has no JupyterLab", hint=hint)


def _become(command: list[str]) -> NoReturn:
    """JupyterLab takes the place of this process, with all signals and its exit code."""
    os.execve(command[0], command, {**os.environ, "JUPYTER_DEFAULT_PROVISIONER_NAME": "capsule"})  # noqa: S606 - its arguments are a list
