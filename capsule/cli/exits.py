"""The exit codes of `capsule`, and how errors and verdicts become one."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

from capsule_protocol.errors import ArgumentError, CapsuleError

if TYPE_CHECKING:
    from capsule.events import ErrorInfo, Finished, Verdict


class Exit(IntEnum):
    """What the exit code says; `docs/reference/cli.md` explains each."""

    OK = 0
    RAISED = 1
    USAGE = 2
    FAILED = 3
    TIMEOUT = 124
    INTERRUPTED = 130
    BROKEN_PIPE = 141


BY_VERDICT: dict[Verdict, Exit] = {
    "ok": Exit.OK,
    "error": Exit.RAISED,
    "timeout": Exit.TIMEOUT,
    "interrupted": Exit.INTERRUPTED,
    "oom": Exit.FAILED,
    "killed": Exit.FAILED,
    "crashed": Exit.FAILED,
    "worker_lost": Exit.FAILED,
}
"""The exit code of each verdict."""


def of_verdict(verdict: Verdict, *, interrupted: bool) -> int:
    """The exit code of a verdict; `interrupted`: the user pressed Ctrl-C, which a kill may have had to enforce."""
    if interrupted and verdict in {"killed", "crashed"}:
        return Exit.INTERRUPTED
    return BY_VERDICT[verdict]


def of_error(error: CapsuleError) -> int:
    """The exit code of an error of Capsule itself: the caller's arguments, or the infrastructure."""
    asked_wrongly = isinstance(error, ArgumentError) or error.code == "environment_unknown"
    return Exit.USAGE if asked_wrongly else Exit.FAILED


def is_system_exit(finished: Finished) -> bool:
    """Whether the code ended by `sys.exit()`, which in a script is no failure but its own choice of exit code."""
    return finished.verdict == "error" and finished.error is not None and finished.error.name == "SystemExit"


def of_system_exit(error: ErrorInfo) -> tuple[int, str]:
    """The exit code that `SystemExit` asks for, and the message that Python would print on stderr (mostly none)."""
    code = int(error.details.get("exit_code", Exit.RAISED))
    # Only what is no number becomes a message, with the code 1.
    says_something = code == Exit.RAISED and error.message not in {"1", "True"}
    return code & 0xFF, error.message if says_something else ""
