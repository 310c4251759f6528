"""The entry point: the group of commands, and what becomes of an error that none of them handled."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from typing import NoReturn

import click

from capsule.cli.approvals import approvals
from capsule.cli.audit import audit
from capsule.cli.checkpoints import restore, save
from capsule.cli.config import config
from capsule.cli.doctor import doctor
from capsule.cli.exits import Exit
from capsule.cli.jupyter import jupyter
from capsule.cli.kernels import kernels
from capsule.cli.keys import keys
from capsule.cli.operate import drain, interrupt, kill, pool, sessions
from capsule.cli.policy import policy
from capsule.cli.promises import promises
from capsule.cli.repl import attach, repl
from capsule.cli.run import run
from capsule.cli.serve import serve, wait_ready
from capsule.cli.store import store


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="capsule-exec", prog_name="capsule", message="%(prog)s %(version)s")
def cli() -> None:
    """Run Python in a session of its own: output as it comes, then one verdict."""


cli.add_command(run)
cli.add_command(repl)
cli.add_command(serve)
cli.add_command(wait_ready)
cli.add_command(keys)
cli.add_command(kernels)
cli.add_command(jupyter)
cli.add_command(config)
cli.add_command(store)
cli.add_command(promises)
cli.add_command(approvals)
cli.add_command(policy)
cli.add_command(audit)
for command in (sessions, attach, interrupt, kill, save, restore, pool, drain, doctor):
    cli.add_command(command)


def main() -> NoReturn:
    """What the program `capsule` calls; leaves with the exit codes of docs/reference/cli.md."""
    _reserve_standard_descriptors()
    try:
        code = cli.main(prog_name="capsule", standalone_mode=False)
    except click.exceptions.Abort:
        code = Exit.INTERRUPTED
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except Exception:  # noqa: BLE001 - a bug of ours must not look like an error of the code, which exits with 1
        traceback.print_exc()
        code = Exit.FAILED
    _leave(int(code or Exit.OK))


def _reserve_standard_descriptors() -> None:
    """Open 0, 1 and 2 where the caller closed them, or the node's sockets would get these numbers."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError as error:
            if error.errno != errno.EBADF:
                raise
            os.open(os.devnull, os.O_RDWR)


def _leave(code: int) -> NoReturn:
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
    except BrokenPipeError:
        # The interpreter flushes once more while it ends, and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        code = code or Exit.BROKEN_PIPE
    sys.exit(code)
