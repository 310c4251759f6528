"""Checks a request before anything is done for it, so that an error names the argument and nothing is left behind."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from capsule_protocol.errors import ArgumentError
from capsule_protocol.limits import DEFAULT_LIMITS

if TYPE_CHECKING:
    from capsule.node.execution import ExecuteRequest

NAME_LENGTH = 1000
ENVELOPE_BYTES = 16 * 1024
"""What the rest of an `execute` message takes at most."""


def check_request(request: ExecuteRequest, message_bytes: int) -> None:
    """Raises ArgumentError for the first argument that is wrong."""
    _check_code(request.code, message_bytes)
    timeout = request.timeout
    if timeout is not None and (
        isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout < math.inf
    ):
        raise ArgumentError("timeout", f"{timeout!r} is no time limit", allowed="seconds more than 0, or None")
    for name in ("quiet", "store_history", "allow_input", "stop_on_error"):
        if not isinstance(getattr(request, name), bool):
            raise ArgumentError(name, f"must be a bool, not {type(getattr(request, name)).__name__}", allowed="bool")
    for name in ("batch", "cell"):
        value = getattr(request, name)
        if not (isinstance(value, str) and len(value) <= NAME_LENGTH) and not (name == "cell" and value is None):
            raise ArgumentError(name, f"must be text, not {value!r:.80}", allowed=f"at most {NAME_LENGTH} characters")


def _check_code(code: object, message_bytes: int) -> None:
    if not isinstance(code, str):
        raise ArgumentError("code", f"must be text, not {type(code).__name__}", allowed="str")
    limit = min(DEFAULT_LIMITS.code_bytes, message_bytes - ENVELOPE_BYTES)
    if code.isascii():
        size = len(code)
    else:
        try:
            size = len(code.encode())
        except UnicodeEncodeError as error:
            raise ArgumentError(
                "code", f"cannot be encoded: {error.reason}", allowed="text without surrogates"
            ) from None
    if size > limit:
        raise ArgumentError("code", f"has {size} bytes", allowed=f"at most {limit}, by code_bytes and message_bytes")
