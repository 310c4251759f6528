"""The bodies of `result` and `error`: what a cell gave, or why it did not."""

from __future__ import annotations

import bdb
import signal
import subprocess
from typing import TYPE_CHECKING, Any

from capsule_kernels.comms import UnknownCommError
from capsule_kernels.stdin import InputCanceledError, InputTimeoutError
from capsule_kernels.tracebacks import note_last

if TYPE_CHECKING:
    from capsule_kernels.shell import ZMQInteractiveShell

Value = tuple[dict[str, Any], dict[str, Any]] | None


MESSAGE_CHARACTERS = 64 * 1024
"""Of an exception's text, and of a line of its traceback: the rest is counted."""
TRACEBACK_LINES = 2000


def succeeded(value: Value, *, shown: bool = False) -> dict[str, Any]:
    """The body of `result`; `value` is the MIME bundle of the last expression and its metadata.

    `text` is left out: it would be the bundle's plain text once more, and that can be long. `shown`: a display had it.
    """
    data, metadata = value or ({}, {})
    body: dict[str, Any] = {"verdict": "ok", "data": data, "metadata": metadata}
    return body | {"shown": True} if shown else body


def failed(
    shell: ZMQInteractiveShell, error: BaseException, *, asked: bool = False, shown: list[str] | None = None
) -> dict[str, Any]:
    """The body of `error` for what the code raised; `asked`: its interruption was asked for.

    `shown`: the traceback, if the error has been shown already.
    """
    try:
        return _failed(shell, error, asked=asked, shown=shown)
    except BaseException as broken:  # noqa: BLE001  # a user's exception answers as it likes, also to `isinstance`
        name, message = _name(error), f"<the exception cannot be shown: it raised {_name(broken)}>"
        body: dict[str, Any] = {"name": name, "message": message, "traceback": [f"{name}: {message}"]}
        return body | {"verdict": "error", "code": "execution_error", "hint": "", "details": {}}


def _failed(
    shell: ZMQInteractiveShell, error: BaseException, *, asked: bool, shown: list[str] | None
) -> dict[str, Any]:
    interrupted = isinstance(error, KeyboardInterrupt) or (asked and _died_of_interrupt(error))
    note_last(error)
    body = explained(shell, error) if shown is None else {**bounded(error, shown), "shown": True}
    if interrupted:
        body["name"] = "KeyboardInterrupt"
    return body | {
        "verdict": "interrupted" if interrupted else "error",
        "code": _code(error, interrupted=interrupted),
        "hint": "",
        "details": _details(error),
    }


def explained(shell: ZMQInteractiveShell, error: BaseException) -> dict[str, Any]:
    """Name, message and traceback of what was raised, of bounded size."""
    return bounded(error, _traceback(shell, error))


def brief(error: BaseException) -> list[str]:
    """The traceback without frames."""
    return [f"{_name(error)}: {_text(error)}"]


def bounded(error: BaseException, lines: list[str]) -> dict[str, Any]:
    """Name, message and these lines of traceback, of bounded size."""
    return {
        "name": _name(error),
        "message": shortened(_text(error), MESSAGE_CHARACTERS),
        "traceback": [shortened(line, MESSAGE_CHARACTERS) for line in lines[-TRACEBACK_LINES:]],
    }


def summed_up(error: BaseException) -> str:
    """Name and message in a line, of bounded size. Never fails."""
    return f"{_name(error)}: {shortened(_text(error), MESSAGE_CHARACTERS)}"


def _name(error: BaseException) -> str:
    """The exception's class; Python 3.13's private `_IncompleteInputError` is a SyntaxError to everybody.

    Runs no code of the user's: neither the class nor its own type are asked.
    """
    name: str = type.__dict__["__name__"].__get__(type(error))
    return "SyntaxError" if issubclass(type(error), SyntaxError) and name.startswith("_") else name


def shortened(text: str, bound: int) -> str:
    """The text, or its beginning and how much of it is missing."""
    return text if len(text) <= bound else f"{text[:bound]} … ({len(text) - bound} more characters)"


_UNKNOWN = 255
"""The exit status that asyncio's child watchers make up for a child that somebody else has waited for."""


def _died_of_interrupt(error: BaseException) -> bool:
    """What IPython's `%%bash` and pdb make of the KeyboardInterrupt that they catch.

    The one says how its child ended, which asyncio calls 255 if IPython, which signals it too, was told before it; the
    other asks again, finds no more input, and quits.
    """
    if isinstance(error, bdb.BdbQuit):
        return True
    codes = (-signal.SIGINT, 128 + signal.SIGINT, _UNKNOWN)
    return isinstance(error, subprocess.CalledProcessError) and error.returncode in codes


def _code(error: BaseException, *, interrupted: bool) -> str:
    if interrupted:
        return "execution_interrupted"
    if isinstance(error, InputTimeoutError):
        return "input_timeout"
    if isinstance(error, InputCanceledError):
        return "input_canceled"
    if isinstance(error, UnknownCommError):
        return "comm_unknown"
    return "no_input_client" if vars(error).get("capsule_code") == "no_input_client" else "execution_error"


def _details(error: BaseException) -> dict[str, Any]:
    """How a process would exit: only for SystemExit."""
    if not isinstance(error, SystemExit):
        return {}
    code = error.code
    if isinstance(code, int):
        number = int.__index__(code)
        return {"exit_code": number if -(2**63) <= number < 2**63 else -1}  # -1: what Python makes of such a number
    return {"exit_code": 0 if code is None else 1}


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException as broken:  # noqa: BLE001  # a user's __str__ may raise anything
        return f"<the message cannot be shown: str() raised {_name(broken)}>"


def _traceback(shell: ZMQInteractiveShell, error: BaseException) -> list[str]:
    try:
        return shell.traceback_lines(error)
    except BaseException as broken:  # noqa: BLE001  # a user's exception can break its own rendering
        return [f"{_name(error)}: {_text(error)}", f"<the traceback cannot be shown: {_name(broken)}>"]
