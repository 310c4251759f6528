"""How the commands on stores, logs and policies tell an error."""

from __future__ import annotations

import functools
import json
import os
from typing import TYPE_CHECKING, Any

import click

from capsule.cli import exits
from capsule.text import one_line
from capsule_protocol.errors import CapsuleError

if TYPE_CHECKING:
    from collections.abc import Callable


def reported(command: Callable[..., int | None], *, program: str = "capsule") -> Callable[..., int]:
    """An error of ours is told by `program`, as JSON if that was asked for, and becomes the exit code."""

    @functools.wraps(command)
    def run(*, as_json: bool = False, **options: Any) -> int:
        try:
            return command(as_json=as_json, **options) or exits.Exit.OK
        except CapsuleError as error:
            if as_json:
                click.echo(json.dumps({"error": error.as_dict()}, default=str))
            else:
                click.echo(f"{program}: {one_line(error)}", err=True)
            return exits.of_error(error)
        except BrokenPipeError:
            # Who reads has seen enough. The interpreter flushes once more while it ends, and would complain.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            return exits.Exit.BROKEN_PIPE

    return run
