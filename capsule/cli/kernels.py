"""`capsule kernels`: the kernels that notebooks and IDEs offer."""

from __future__ import annotations

import functools
import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from capsule.cli import exits
from capsule.cli.options import json_option
from capsule.platforms import check_node
from capsule_protocol.errors import CapsuleError

if TYPE_CHECKING:
    from collections.abc import Callable


def _reported(command: Callable[..., None]) -> Callable[..., int]:
    """Errors of ours, and of the disk, on stderr and as the exit code."""

    @functools.wraps(command)
    def run(*arguments: Any, **options: Any) -> int:
        try:
            command(*arguments, **options)
        except CapsuleError as error:
            click.echo(f"capsule kernels: {error}", err=True)
            return exits.of_error(error)
        except OSError as error:
            click.echo(f"capsule kernels: {error}", err=True)
            return exits.Exit.FAILED
        return exits.Exit.OK

    return run


@click.group()
def kernels() -> None:
    """Offer sessions as kernels to JupyterLab, VS Code, nbclient and whatever else starts Jupyter kernels.

    Exit code: 0 done, 2 wrong usage, 3 the files cannot be written.
    """


@kernels.command()
@click.option("--user", is_flag=True, help="For you, whichever Jupyter you start.")
@click.option("--sys-prefix", is_flag=True, help="For the Jupyter of this Python environment (default).")
@click.option("--environment", metavar="NAME", default="default", help="Environment of its sessions.")
@click.option("--name", metavar="KERNEL", help="How programs call it (default: capsule, or capsule-NAME).")
@click.option("--display-name", metavar="TEXT", help="How people see it.")
@click.option(
    "--config",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False),
    help="Configuration of the environments (default: none).",
)
@click.option("--directory", metavar="DIR", help="Directory of the node that is to run it (default: your own node).")
@json_option
@_reported
def install(user: bool, sys_prefix: bool, as_json: bool, **options: Any) -> None:
    """Install a kernel for this interpreter; one of the same name is replaced."""
    from capsule.jupyter import kernelspecs

    if user and sys_prefix:
        raise click.UsageError("--user and --sys-prefix are two places: choose one.")
    check_node()
    made = kernelspecs.install(user=user, **options)
    click.echo(json.dumps(asdict(made)) if as_json else f"{made.name} ({made.display_name}) is in {made.directory}")


@kernels.command("list")
@json_option
@_reported
def list_(as_json: bool) -> None:
    """Show the kernels of Capsule that are installed."""
    from capsule.cli.tables import text
    from capsule.jupyter import kernelspecs

    found = kernelspecs.installed()
    if as_json:
        click.echo(json.dumps([asdict(one) for one in found]))
        return
    rows = [(one.name, one.display_name, one.environment, one.directory + _note(one.hidden)) for one in found]
    headings = ("name", "shown as", "environment", "directory")
    click.echo(text(headings, rows, terminal=sys.stdout.isatty()), nl=False)


@kernels.command()
@click.argument("name")
@json_option
@_reported
def remove(name: str, as_json: bool) -> None:
    """Remove a kernel of Capsule."""
    from capsule.jupyter import kernelspecs

    gone = kernelspecs.remove(name)
    if as_json:
        click.echo(json.dumps(asdict(gone)))
        return
    click.echo(f"{gone.name} is removed from {gone.directory}")
    for one in kernelspecs.installed():
        if one.name == name:
            click.echo(f"another one of this name is in {one.directory}")


def _note(hidden: bool) -> str:
    return " (hidden by another kernel of this name)" if hidden else ""
