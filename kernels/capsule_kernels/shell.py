"""The session's shell: IPython's, without its history database, without its prompts, without colours."""

from __future__ import annotations

import bdb
import itertools
import os
import re
import subprocess
import sys
import threading
import traceback
import types
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from IPython.core.autocall import ZMQExitAutocall
from IPython.core.compilerop import CachingCompiler
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
from traitlets import Instance, Type, default

from capsule_kernels import magics
from capsule_kernels.display import CellDisplayHook, CellDisplayPublisher, HeldDisplayTrap
from capsule_kernels.history import History, SessionHistory
from capsule_kernels.payloads import Payloads
from capsule_kernels.recognised import KernelFace, notebook_config
from capsule_kernels.syntax import Syntax
from capsule_kernels.tracebacks import user_frames
from capsule_kernels.verdicts import bounded, brief, explained

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ERROR = "application/vnd.jupyter.error"
"""The MIME type of an error that is shown and is no verdict: name, message and traceback, as Jupyter calls them."""

_CELL_FILE = re.compile(r'File "(?P<name><ipython-input-[^"]+>|[^"]+/cells/\d+\.py)"')

_EXIT = "An exception has occurred, use %tb to see the full traceback."
_ENGINE_NAMES = ("In", "Out", "_ih", "_oh", "_dh", "get_ipython", "exit", "quit")


class CellCompiler(CachingCompiler):  # type: ignore[misc]  # IPython is untyped
    """IPython's compiler; a cell may have a name of its own in tracebacks."""

    def __init__(self) -> None:
        super().__init__()
        self.names: dict[str, str] = {}
        self.name_of_file: Callable[[str], str] | None = None
        self._numbers = itertools.count(1)

    def get_code_name(self, raw: str, _transformed: str, number: int) -> str:
        """A file name that no other cell has; IPython's costs a hash of the source, which a debugger needs."""
        if self.name_of_file is not None:
            return self.name_of_file(raw)
        return f"<ipython-input-{number}-{next(self._numbers)}>"

    def format_code_name(self, name: str) -> tuple[str, str] | None:
        """How a traceback calls a source: `Cell In[3]`, or the name that the client gave."""
        if name in self.names:
            return ("File", self.names[name])
        found: tuple[str, str] | None = super().format_code_name(name)
        return found


class ZMQInteractiveShell(InteractiveShell):  # type: ignore[misc]  # IPython is untyped; rich knows a notebook by this name
    """IPython's shell for one session."""

    displayhook_class = Type(CellDisplayHook)
    display_pub_class = Type(CellDisplayPublisher)
    compiler_class = Type(CellCompiler)
    exiter = Instance(ZMQExitAutocall)
    kernel: Any = None
    keepkernel_on_exit: Any = None
    payloads: Payloads
    subshells: Any = None
    past: History
    syntax: Syntax
    own_display: CellDisplayPublisher
    last_execution_succeeded = True  # plain attributes: as traits they cost each cell a twentieth of its time
    last_execution_result: Any = None
    own_names: Mapping[str, Any] = MappingProxyType({})

    def init_virtualenv(self) -> None:
        """Nothing: the environment has chosen the interpreter."""

    @default("exiter")  # type: ignore[untyped-decorator]  # as above
    def _make_exiter(self) -> ZMQExitAutocall:
        return ZMQExitAutocall(self)

    def init_hooks(self) -> None:
        """IPython's hooks, and one for its pager."""
        super().init_hooks()
        self.payloads = Payloads(self)
        self.set_hook("show_in_pager", self.payloads.page, priority=0)

    def init_history(self) -> None:
        """IPython's history, which needs no file."""
        self.history_manager = SessionHistory(shell=self, parent=self)
        self.configurables.append(self.history_manager)

    def init_user_ns(self) -> None:
        """Fill a fresh or reset namespace."""
        super().init_user_ns()
        self.user_ns.update(self.own_names)
        self.user_ns_hidden.update(self.own_names)
        self._engine_names = {name: self.user_ns[name] for name in _ENGINE_NAMES} | dict(self.own_names)

    def add_name(self, name: str, value: Any) -> None:
        """Put a name into the namespace that stays, whatever user code does to the others."""
        self.own_names = {**self.own_names, name: value}
        self.user_ns[name] = self._engine_names[name] = self.user_ns_hidden[name] = value

    def restore_names(self) -> None:
        """Put back what user code has deleted of the names without which the shell, or the user, is lost."""
        for name, value in self._engine_names.items():
            if name not in self.user_ns:
                self.user_ns[name] = value

    def enable_gui(self, gui: str | None = None) -> None:
        """No graphical loop runs in a session; figures are shown as images."""
        if gui not in (None, "inline"):
            raise ValueError(f"a session has no display: gui={gui!r} is not allowed, use %matplotlib inline")

    def system(self, cmd: str) -> None:
        """`!command`: the child writes to the captured descriptors itself, so nothing of its output is reordered."""
        command = self.var_expand(cmd, depth=1)
        with subprocess.Popen(command, shell=True, executable=os.environ.get("SHELL")) as process:  # noqa: S602  # asked
            try:
                self.user_ns["_exit_code"] = process.wait()
            finally:
                process.kill()  # nothing, once it has ended

    def set_next_input(self, s: str, replace: bool = False) -> None:
        """`%load` and others: what the user is to edit next."""
        if not self.payloads.offer({"source": "set_next_input", "text": s, "replace": replace}):
            super().set_next_input(s, replace)

    def ask_exit(self) -> None:
        """`exit` and `quit` end the cell, unless a front end sees to them; the session is closed by its client."""
        if not self.payloads.offer({"source": "ask_exit", "keepkernel": bool(self.keepkernel_on_exit)}):
            raise SystemExit(0)

    def transform_cell(self, raw_cell: str) -> str:
        """IPython's syntax (magics, `!`, `?`) to Python; plain Python passes at once."""
        if self.syntax.is_plain(raw_cell):
            return raw_cell if raw_cell.endswith("\n") else raw_cell + "\n"
        source: str = super().transform_cell(raw_cell)
        return source

    def traceback_lines(self, error: BaseException) -> list[str]:
        """The traceback as lines of text: the user's frames, with their source.

        Front ends that show what IPython asks of them get IPython's parts, each of which may have several lines.
        """
        if isinstance(error, UsageError):  # as IPython: of a magic's use, and no line of its source
            return [f"UsageError: {error}"]
        if isinstance(error, SystemExit) and self.payloads.wanted:
            return [f"{_EXIT}\n", *self.without_frames(error)]
        frames = user_frames(error.__traceback__)
        quick = isinstance(error, KeyboardInterrupt) and not self.payloads.wanted
        if quick or isinstance(error, BaseExceptionGroup):
            # Of an interrupt a program waits for the verdict; of a group IPython does not show the members.
            text = "".join(traceback.format_exception(type(error), error, frames))
            structured: Any = _CELL_FILE.sub(self._call_cell, text).splitlines()
        elif isinstance(error, SyntaxError):  # with the place in the source, which may be that of a module
            called = traceback.extract_tb(frames) if frames is not None else []
            structured = self.SyntaxTB.structured_traceback(type(error), error, called)
        else:
            render = getattr(error, "_render_traceback_", None)
            structured = render() if callable(render) else None
            if structured is None:
                structured = self.InteractiveTB.structured_traceback(type(error), error, frames, tb_offset=0)
        if self.payloads.wanted:
            return [str(part) for part in structured]
        return [line for part in structured for line in str(part).split("\n")]

    def without_frames(self, error: BaseException) -> list[str]:
        """The end of a traceback."""
        try:
            return [str(part) for part in self.InteractiveTB.get_exception_only(type(error), error)]
        except BaseException:  # noqa: BLE001  # a user's exception answers as it likes
            return brief(error)

    def show_thread_error(self, arguments: threading.ExceptHookArgs) -> None:
        """What ended a thread, with the source text of cells, on stderr as everywhere."""
        error = arguments.exc_value
        if error is None or isinstance(error, SystemExit):
            return
        name = arguments.thread.name if arguments.thread is not None else "?"
        lines = [f"Exception in thread {name}:", *self.traceback_lines(error)]
        sys.stderr.write("\n".join(lines) + "\n")

    def _call_cell(self, found: re.Match[str]) -> str:
        """A cell's file as tracebacks call it."""
        called = self.compile.format_code_name(found["name"])
        return " ".join(called) if called else found[0]

    def _showtraceback(self, _kind: Any, error: BaseException, structured: list[str]) -> None:
        """An error that is not the cell's own, as magics and broken callbacks show it.

        What captures the output of the code that it is of (`%%capture`) gets neither, or nobody would see it.
        """
        text = self.InteractiveTB.stb2text(structured)
        if not self.payloads.wanted:
            print(text, file=sys.__stderr__)
            return
        told = bounded(error, list(structured))
        self._tell_error(told)
        self.displayhook.here.note_broken(error, told["traceback"])

    def show_error(self, error: BaseException) -> list[str] | None:
        """Show a cell's own error as a front end expects it, before its verdict; answers the lines of the traceback.

        None: the verdict has to tell of it, in the words of who gives it.
        """
        if "capsule_code" in object.__getattribute__(error, "__dict__"):
            return None
        told = explained(self, error)
        if isinstance(error, UsageError):
            print(*told["traceback"], sep="\n", file=sys.stderr)
        elif not isinstance(error, bdb.BdbQuit):  # who has left the debugger knows of it
            self._tell_error(told)
        lines: list[str] = told["traceback"]
        return lines

    def _tell_error(self, told: dict[str, Any]) -> None:
        content = {"ename": told["name"], "evalue": told["message"], "traceback": told["traceback"]}
        self.own_display.publish({ERROR: content, "text/plain": "\n".join(told["traceback"])})


def build() -> ZMQInteractiveShell:
    """A shell with a fresh user module that is `__main__`; safe to build before a fork: no thread, no open file."""
    main = types.ModuleType("__main__", "Automatically created module for the session")
    main.__dict__["__builtins__"] = sys.modules["builtins"]
    shell: ZMQInteractiveShell = ZMQInteractiveShell.instance(
        config=notebook_config(), user_module=main, user_ns=main.__dict__
    )
    shell.colors = "nocolor"
    shell.syntax = Syntax(shell)
    shell.own_display = shell.display_pub  # which `capture_output` replaces
    shell.displayhook.note_printers()
    shell.past = History(shell)
    magics.register(shell)
    shell.builtin_trap.activate()
    shell.kernel = KernelFace(shell)
    threading.excepthook = shell.show_thread_error
    shell.display_trap = HeldDisplayTrap(hook=shell.displayhook)
    sys.displayhook = shell.displayhook
    return shell
