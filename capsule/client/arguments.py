"""Checks of what a caller passes: each refusal names the argument and says what is allowed."""

from __future__ import annotations

import difflib
import math
import os
from base64 import urlsafe_b64encode
from collections.abc import Iterable
from hashlib import sha256
from typing import TYPE_CHECKING, Any, TypedDict

from capsule.node.requests import check_expressions
from capsule_protocol.errors import ArgumentError
from capsule_protocol.ids import EXECUTION
from capsule_protocol.limits import DEFAULT_LIMITS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ANY = range(-(2**31), 2**31)


class CellOptions(TypedDict, total=False):
    """How one piece of code runs.

    `quiet`: no value, no count, no history. `store_history`: it counts, and gets its `In` and `Out`. `cell`: the name
    of its source in tracebacks. `if_epoch`: it is refused with `epoch_mismatch` unless that is the session's epoch, to
    which each worker that is lost or restarted adds 1. `user_expressions`: expressions by names, which are evaluated
    after the code; the result has what came of them. `payloads`: what IPython asks of a front end (the text of a
    pager, the next input, the end) is in the result, and not printed or done.
    """

    quiet: bool
    store_history: bool
    cell: str | None
    if_epoch: int | None
    user_expressions: dict[str, str]
    payloads: bool


class ExecuteOptions(CellOptions, total=False):
    """As CellOptions; `stop_on_error`: if it does not end in `ok`, the rest of its batch is cancelled."""

    stop_on_error: bool


def check_code(code: str, argument: str = "code") -> str:
    """The code itself, if it is text that can be sent."""
    if not isinstance(code, str):
        hint = "; decode it first" if isinstance(code, (bytes, bytearray, memoryview)) else ""
        raise ArgumentError(argument, f"must be a str, not {type(code).__name__}{hint}", allowed="Python source as str")
    try:
        size = len(code) if code.isascii() else len(code.encode())
    except UnicodeEncodeError as error:
        message = f"has a lone surrogate at offset {error.start}, which is no character"
        raise ArgumentError(argument, message, allowed="text that UTF-8 can encode") from error
    if size > DEFAULT_LIMITS.code_bytes:
        limit = DEFAULT_LIMITS.code_bytes
        raise ArgumentError(argument, f"has {size} bytes", allowed=f"at most {limit} bytes (code_bytes)")
    return code


def check_codes(codes: Iterable[str]) -> list[str]:
    """Several pieces of code, each of which can be sent."""
    if isinstance(codes, (str, bytes)) or not isinstance(codes, Iterable):
        raise ArgumentError("codes", f"is one {type(codes).__name__}", allowed="several pieces of code, as a list")
    return [check_code(code, f"codes[{index}]") for index, code in enumerate(codes)]


def check_timeout(timeout: float | None, argument: str = "timeout") -> float | None:
    """A number of seconds above zero, or None for no limit."""
    if timeout is None:
        return None
    allowed = "seconds as a number above 0, or None for no limit"
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
        raise ArgumentError(argument, f"must be a number, not {type(timeout).__name__}", allowed=allowed)
    try:
        seconds = float(timeout)
    except OverflowError:  # an int that no float can hold
        seconds = math.inf
    if not (math.isfinite(seconds) and seconds > 0):
        raise ArgumentError(argument, f"is {seconds:g}", allowed=allowed)
    return seconds


def check_key(key: str | None, session: str, *, remembered: bool) -> str:
    """The id of the execution that this idempotency key stands for in a session; without a key, "".

    Refused where nothing remembers executions: in library mode.
    """
    if key is None:
        return ""
    if not remembered:
        message = "is not supported in library mode: nothing remembers executions"
        raise ArgumentError("key", message, allowed="None", code="unsupported")
    if not check_text(key, "key"):
        raise ArgumentError("key", "is empty", allowed="a str with at least one character")
    named = f"{session}\0{key}".encode("utf-8", "surrogatepass")
    return EXECUTION + urlsafe_b64encode(sha256(named).digest()).decode()[:16]


def check_flag(value: bool, argument: str) -> bool:
    """A real bool: 1 or "no" is more likely a mistake than meant."""
    if not isinstance(value, bool):
        raise ArgumentError(argument, f"must be a bool, not {type(value).__name__}", allowed="True or False")
    return value


def check_callback(value: Callable[..., Any] | None, argument: str) -> None:
    """Something that can be called, or None."""
    if value is not None and not callable(value):
        raise ArgumentError(argument, f"must be callable, not {type(value).__name__}", allowed="a function, or None")


def check_integer(value: int, argument: str, allowed: range) -> int:
    """An integer within `allowed`."""
    text = f"an int from {allowed.start} to {allowed.stop - 1}"
    if isinstance(value, bool) or not isinstance(value, int):
        raise ArgumentError(argument, f"must be an int, not {type(value).__name__}", allowed=text)
    if value not in allowed:
        raise ArgumentError(argument, f"is {value}", allowed=text)
    return value


def check_lines(lines: tuple[int, int | None]) -> dict[str, int | None]:
    """The numbers of cells, from one to before another, as a range of the history."""
    allowed = "(first, behind the last), or (first, None)"
    if not isinstance(lines, tuple) or len(lines) != 2:
        raise ArgumentError("lines", f"is {lines!r:.80}", allowed=allowed)
    start, stop = lines
    checked = None if stop is None else check_integer(stop, "lines", ANY)
    return {"start": check_integer(start, "lines", ANY), "stop": checked}


def check_cursor(code: str, cursor: int | None) -> int:
    """An offset into `code`, in characters; None is its end."""
    return len(code) if cursor is None else check_integer(cursor, "cursor", range(len(code) + 1))


def check_text(value: str | os.PathLike[str], argument: str) -> str:
    """Text without NUL; a path counts as its text."""
    value = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(value, str):
        raise ArgumentError(argument, f"must be a str, not {type(value).__name__}", allowed="a str")
    if "\0" in value:
        raise ArgumentError(argument, "has a NUL character", allowed="text without NUL")
    return value


def check_execute(options: Mapping[str, Any]) -> ExecuteOptions:
    """The options of one execution, if all are known and of their types."""
    if not options:
        return ExecuteOptions()
    check_names(options, ExecuteOptions.__annotations__)
    for name, value in options.items():
        if name == "if_epoch":
            check_epoch(value)
        elif name == "user_expressions":
            check_expressions(value)
        elif name != "cell":
            check_flag(value, name)
        elif value is not None:
            check_text(value, name)
    return ExecuteOptions(**options)  # type: ignore[no-any-return,typeddict-item]  # checked above


def check_epoch(epoch: object) -> None:
    """Refuse what is no epoch of a session."""
    if epoch is not None and (type(epoch) is not int or epoch < 1):
        raise ArgumentError("if_epoch", f"is {epoch!r:.80}", allowed="an epoch of the session, from 1, or None")


def check_names(given: Iterable[str], known: Iterable[str]) -> None:
    """Refuse a name that is not known, and say which one was probably meant."""
    known = sorted(known)
    for name in given:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            meant = f"; did you mean {close[0]!r}?" if close else ""
            raise ArgumentError(name, f"is not an option{meant}", allowed=", ".join(known), code="unknown_option")
