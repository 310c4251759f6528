"""Checks a request before anything is done for it, so that an error names the argument and nothing is left behind."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from capsule.comms import check_comm
from capsule_protocol.errors import ArgumentError
from capsule_protocol.limits import DEFAULT_LIMITS
from capsule_protocol.messages.execution import MAX_EXPRESSIONS

if TYPE_CHECKING:
    from capsule.node.execution import ExecuteRequest

NAME_LENGTH = 1000
ENVELOPE_BYTES = 16 * 1024
"""What the rest of an `execute` message takes at most."""


def check_request(request: ExecuteRequest, message_bytes: int) -> None:
    """Raises ArgumentError for the first argument that is wrong."""
    if request.user_expressions != {}:
        message_bytes -= check_expressions(request.user_expressions, message_bytes - ENVELOPE_BYTES)
    _check_code(request.code, message_bytes)
    if request.comm is not None:
        check_comm(request.comm, message_bytes - ENVELOPE_BYTES)
        if request.code:
            raise ArgumentError("code", "does not go with a comm", allowed="no code")
    timeout = request.timeout
    if timeout is not None and (
        isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout < math.inf
    ):
        raise ArgumentError("timeout", f"{timeout!r} is no time limit", allowed="seconds more than 0, or None")
    for name in ("quiet", "store_history", "allow_input", "stop_on_error", "payloads"):
        if not isinstance(getattr(request, name), bool):
            raise ArgumentError(name, f"must be a bool, not {type(getattr(request, name)).__name__}", allowed="bool")
    for name in ("batch", "cell"):
        value = getattr(request, name)
        if not (isinstance(value, str) and len(value) <= NAME_LENGTH) and not (name == "cell" and value is None):
            raise ArgumentError(name, f"must be text, not {value!r:.80}", allowed=f"at most {NAME_LENGTH} characters")


def check_expressions(expressions: object, limit: int = DEFAULT_LIMITS.code_bytes) -> int:
    """The bytes that they take together. Raises ArgumentError for what are no expressions by names, or too many."""
    allowed = f"at most {MAX_EXPRESSIONS} expressions by names, as text of at most {limit} bytes together"
    if not isinstance(expressions, dict) or len(expressions) > MAX_EXPRESSIONS:
        raise ArgumentError("user_expressions", f"must be a dict, not {expressions!r:.80}", allowed=allowed)
    size = 0
    for pair in expressions.items():
        for text in pair:
            if not isinstance(text, str):
                raise ArgumentError("user_expressions", f"has {text!r:.80}, which is no text", allowed=allowed)
            size += _size_of("user_expressions", text)
    if size > limit:
        raise ArgumentError("user_expressions", f"have {size} bytes", allowed=allowed)
    return size


def _check_code(code: object, message_bytes: int) -> None:
    if not isinstance(code, str):
        raise ArgumentError("code", f"must be text, not {type(code).__name__}", allowed="str")
    limit = min(DEFAULT_LIMITS.code_bytes, message_bytes - ENVELOPE_BYTES)
    size = _size_of("code", code)
    if size > limit:
        raise ArgumentError("code", f"has {size} bytes", allowed=f"at most {limit}, by code_bytes and message_bytes")


def _size_of(argument: str, text: str) -> int:
    """The bytes of a text."""
    if text.isascii():
        return len(text)
    try:
        return len(text.encode())
    except UnicodeEncodeError as error:
        raise ArgumentError(argument, f"cannot be encoded: {error.reason}", allowed="text without surrogates") from None
