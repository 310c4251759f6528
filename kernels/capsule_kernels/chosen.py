"""Errors shown as the session has chosen: by `%pdb on`, a handler for them, or a function in the place of IPython's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from capsule_kernels.tracebacks import note_last, user_frames
from capsule_kernels.verdicts import brief

if TYPE_CHECKING:
    from capsule_kernels.shell import ZMQInteractiveShell

_FUNCTIONS = frozenset({"showtraceback", "showsyntaxerror", "_showtraceback"})
"""What rich and others replace, on the shell itself."""


def show(shell: ZMQInteractiveShell, error: BaseException) -> list[str] | None:
    """Show what a cell raises, while it is being handled; None: the session has chosen nothing, or that failed.

    Answers what the verdict says, behind the traceback that was shown.

    Interrupts and exits are left alone: nobody has asked for a debugger there. An interrupt of the code that shows the
    error is raised.
    """
    if not isinstance(error, Exception) or not _is_chosen(shell, error):
        return None
    error.__traceback__ = user_frames(error.__traceback__)  # they look for it in `sys.exc_info()`
    note_last(error)
    try:
        _show(shell, error)
    except (Exception, SystemExit):  # noqa: BLE001  # the user's code: the verdict tells of the cell's own error
        return None
    return brief(error)


def _is_chosen(shell: ZMQInteractiveShell, error: Exception) -> bool:
    return bool(shell.call_pdb) or isinstance(error, shell.custom_exceptions) or not _FUNCTIONS.isdisjoint(vars(shell))


def _show(shell: ZMQInteractiveShell, error: Exception) -> None:
    if isinstance(error, shell.custom_exceptions):
        shell.CustomTB(type(error), error, error.__traceback__)
    elif isinstance(error, SyntaxError) and error.__traceback__ is None:  # of the cell itself
        shell.showsyntaxerror()
    else:
        shell.showtraceback(running_compiled_code=True, tb_offset=0)
