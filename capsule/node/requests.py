"""What is asked of a session that is to run something.

It is checked before anything is done for it, so that an error names the argument and nothing is left behind.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from capsule.comms import check_comm
from capsule_protocol.errors import ArgumentError, SessionError
from capsule_protocol.limits import DEFAULT_LIMITS
from capsule_protocol.messages.execution import MAX_EXPRESSIONS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from capsule.comms import CommRequest

NAME_LENGTH = 1000
WHAT = ("code", "user_expressions", "payloads", "comm", "turn", "subshell")
"""The fields of a request that say what is asked for. The others say how it is to be done, and for whom."""
ENVELOPE_BYTES = 16 * 1024
"""What the rest of an `execute` message takes at most."""


@dataclass(frozen=True, slots=True)
class Turn:
    """Something that a worker does as it runs a cell, and that is none: the message that asks for it."""

    kind: str
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class ExecuteRequest:
    """What to run and how.

    `timeout` counts from the start of the code. `stop_on_error`: if this one does not end in `ok`, what is queued
    behind it with the same `batch` is cancelled. `follows`: the execution before it in its batch, by which a node
    elsewhere knows what came too late to be queued behind an error. `cell` is the name of the source in tracebacks.
    `if_epoch`: only if that is the session's epoch. `user_expressions` and `payloads`: the verdict tells of them. With
    a `comm` or a `turn` there is no code. With a `subshell` it runs there, beside what runs elsewhere. `submitter`: the
    principal who asks for it, on which depends who may approve its calls, and nothing else; "": the session's owner.
    `client`: which of those that have the session asks for it, by its secret, which is not written down.
    """

    code: str
    timeout: float | None = None
    quiet: bool = False
    store_history: bool = True
    allow_input: bool = False
    stop_on_error: bool = False
    batch: str = ""
    follows: str = ""
    cell: str | None = None
    if_epoch: int | None = None
    user_expressions: dict[str, str] = field(default_factory=dict)
    payloads: bool = False
    comm: CommRequest | None = None
    turn: Turn | None = None
    subshell: str = ""
    submitter: str = field(default="", compare=False)
    client: str = field(default="", compare=False, repr=False)


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
    for name in ("batch", "follows", "cell", "subshell"):
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


def check_same(first: ExecuteRequest, again: ExecuteRequest, key: str | None, execution: str) -> None:
    """Whether a request asks for what one of the same key or id did before. How that is done the first one has said.

    Raises SessionError `idempotency_conflict`, whose details say what `differs`.
    """
    differs = [name for name in WHAT if getattr(first, name) != getattr(again, name)]
    if differs:
        what = f"execution {execution[:64]!r}" if key is None else f"the idempotency key {key[:64]!r}"
        raise conflict(what, {"differs": differs})


def conflict(what: str, details: Mapping[str, Any]) -> SessionError:
    """The refusal of a request whose key or id came before with another one."""
    differs = ", ".join(map(str, details.get("differs", ())))
    why = f": not the same {differs}" if differs else ""
    return SessionError(
        "idempotency_conflict", f"{what} was used before with another request{why}", details={**details}
    )


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
