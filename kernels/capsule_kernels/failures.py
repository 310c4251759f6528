"""What is told of an error in this process to somebody in another one."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING, Final

from capsule_kernels.sandbox.errors import SandboxError

if TYPE_CHECKING:
    from collections.abc import Sequence

TRACEBACK_CHARACTERS: Final = 32_000
"""The last so many of a traceback are told."""


class ThreadsLeftError(RuntimeError):
    """A module has left threads running in a process that was to be forked."""

    hint = 'Set start_method = "spawn" of the environment: each worker then imports its modules itself.'

    def __init__(self, module: str, threads: Sequence[str]) -> None:
        names = ", ".join(threads)
        super().__init__(f"importing {module} left threads running, which do not survive a fork: {names}")


def describe(error: BaseException) -> dict[str, str]:
    """Its name, its message and its traceback; a code and a hint, if the environment's own are not the right ones."""
    lines = traceback.TracebackException.from_exception(error)
    text = "".join(lines.format())[-TRACEBACK_CHARACTERS:]
    last = "".join(lines.format_exception_only()).strip()
    message = last.removeprefix(f"{type(error).__name__}: ")[-TRACEBACK_CHARACTERS // 8 :]
    told = {"name": type(error).__name__, "message": message, "traceback": text}
    if isinstance(error, SandboxError):
        return told | {"code": "sandbox_unavailable", "message": error.message, "hint": error.hint}
    return told | {"hint": error.hint} if isinstance(error, ThreadsLeftError) else told
