"""The magics of a notebook's kernel that IPython by itself does not have."""

from __future__ import annotations

import os
import shlex
import subprocess
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from IPython.core import page
from IPython.core.error import UsageError
from IPython.core.magic import Magics, line_magic, magics_class
from IPython.core.magics.code import CodeMagics, InteractivelyDefined, MacroToEdit
from IPython.paths import get_ipython_dir

if TYPE_CHECKING:
    from collections.abc import Callable

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
    def subshell(self, _line: str) -> None:
        """Show which subshell runs this, and which there are: `%subshell`."""
        subshells = self.shell.subshells
        print(f"subshell id: {subshells.here or None}")
        print(f"thread id: {threading.get_ident()}")
        print(f"main thread id: {threading.main_thread().ident}")
        print(f"pid: {os.getpid()}")
        print(f"subshell list: {subshells.names}")

    @line_magic  # type: ignore[untyped-decorator]  # as above
    def store(self, line: str) -> None:
        """IPython's own `%store`, loaded here: it keeps values in files, for other sessions of this user too."""
        from IPython.external.pickleshare import PickleShareDB  # late: few sessions need it

        folder = Path(get_ipython_dir()) / "profile_default" / "db"  # of the session, not of its zygote
        try:
            self.shell.db = PickleShareDB(str(folder))
        except OSError as error:
            raise UsageError(
                f"%store cannot keep anything in {folder}: {error.strerror}. "
                "Set IPYTHONDIR to a directory that the session may write to."
            ) from error
        self.shell.extension_manager.load_extension("storemagic")  # its magic takes the place of this one
        self.shell.run_line_magic("store", line)

    @line_magic  # type: ignore[untyped-decorator]  # as above
    def edit(self, line: str) -> None:
        """Have the front end open an editor: `%edit [-n LINE] [FILE|NAME|INPUTS]`. What is written there is not run."""
        options, target = self.parse_options(line, "prxn:")
        try:
            name, number = self._target(target, options)
        except MacroToEdit as error:
            raise UsageError("%edit does not edit macros: %macro makes them anew") from error
        payload = {"source": "edit_magic", "filename": os.path.abspath(name), "line_number": number}  # noqa: PTH100  # as a text
        if not self.shell.payloads.offer(payload):
            raise UsageError("%edit needs a front end with an editor")

    def _target(self, target: str, options: dict[str, Any]) -> tuple[str, Any]:
        """The file that is meant, or one that is made of it, and the line in it."""
        find = CodeMagics._find_edit_target  # noqa: SLF001  # ipykernel asks it too
        try:
            name, number, _ = find(self.shell, target, options, ["", ""])
        except InteractivelyDefined as defined:
            name, number, _ = find(self.shell, str(defined.index), options, ["", ""])
        return name, number

    @line_magic  # type: ignore[untyped-decorator]  # as above
    def man(self, line: str) -> None:
        """Show a page of the manual in the pager: `%man COMMAND`."""
        done = subprocess.run(
            ["man", *shlex.split(line)], capture_output=True, text=True, errors="replace", check=False
        )
        if done.returncode:
            raise UsageError(done.stderr.strip() or f"man ended with {done.returncode}")
        page.page(done.stdout)


ELSEWHERE = {
    "connect_info": (
        "%connect_info is not there: the connection file belongs to whoever has started the kernel. "
        "%capsule info shows how a Python program reaches this session."
    ),
    "qtconsole": (
        "%qtconsole is not there: a session has no display. "
        "Start `jupyter qtconsole --existing FILE` yourself, with the kernel's connection file."
    ),
    "autosave": "%autosave is not there: a session does not know which page shows it. Set it in the front end.",
}
"""Magics of ipykernel that have no meaning in a session, and what to do."""


def _refuse(name: str) -> Callable[[str], None]:
    def refuse(_line: str = "") -> None:
        raise UsageError(ELSEWHERE[name])

    refuse.__doc__ = ELSEWHERE[name]
    return refuse


def register(shell: ZMQInteractiveShell) -> None:
    """Have them in a shell; `%more` is `%less`, `%ed` is `%edit`."""
    shell.register_magics(KernelMagics)
    for name in ELSEWHERE:
        shell.register_magic_function(_refuse(name), "line", name)
    shell.magics_manager.register_alias("more", "less")
    shell.magics_manager.register_alias("ed", "edit")
    shell.alias_manager.soft_define_alias("clear", "clear")
