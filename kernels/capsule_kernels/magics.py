"""The magics of a notebook's kernel that IPython by itself does not have."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from IPython.core import page
from IPython.core.error import UsageError
from IPython.core.magic import Magics, line_magic, magics_class

if TYPE_CHECKING:
    from capsule_kernels.shell import ZMQInteractiveShell


@magics_class
class KernelMagics(Magics):  # type: ignore[misc]  # IPython is untyped
    """What shows text in the front end's pager: pagers of terminals need one."""

    @line_magic  # type: ignore[untyped-decorator]  # as above
    def less(self, line: str) -> None:
        """Show a file in the pager: `%less FILE`."""
        names = shlex.split(line)
        if len(names) != 1:
            raise UsageError("%less needs the name of one file")
        page.page(Path(names[0]).expanduser().read_text(encoding="utf-8", errors="replace"))

    @line_magic  # type: ignore[untyped-decorator]  # as above
    def man(self, line: str) -> None:
        """Show a page of the manual in the pager: `%man COMMAND`."""
        done = subprocess.run(
            ["man", *shlex.split(line)], capture_output=True, text=True, errors="replace", check=False
        )
        if done.returncode:
            raise UsageError(done.stderr.strip() or f"man ended with {done.returncode}")
        page.page(done.stdout)


def register(shell: ZMQInteractiveShell) -> None:
    """Have them in a shell; `%more` is `%less`."""
    shell.register_magics(KernelMagics)
    shell.magics_manager.register_alias("more", "less")
