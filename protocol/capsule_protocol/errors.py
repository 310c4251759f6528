"""The taxonomy of errors: one root, classes by who must act, and to which of these each code of the table belongs.

A code is what programs compare: the same string shows in Python, on the command line, in logs and on the wire. A class
says who must act: the caller (`ArgumentError`), this end of a link (`LocalProtocolError`), the other end
(`RemoteProtocolError`), whoever owns the session, or the author of the code that ran (`ExecutionError`).
"""

from __future__ import annotations

from typing import Any, TypeVar

from capsule_protocol.codes import CODES, CodeInfo

__all__ = [
    "CODES",
    "DENIED",
    "FAILED",
    "ArgumentError",
    "CapabilityDenied",
    "CapabilityError",
    "CapabilityFailed",
    "CapabilityTimeout",
    "CapsuleError",
    "CodeInfo",
    "EnvironmentFailed",
    "ExecutionError",
    "LocalProtocolError",
    "NodeError",
    "PoolError",
    "RemoteProtocolError",
    "SessionError",
    "StoreError",
    "WorkerLost",
    "capability_error",
]


class CapsuleError(Exception):
    """The root of all errors of Capsule. Hint and retryable default to what the table says of the code."""

    def __init__(
        self,
        code: str,
        message: str,
        *,
        hint: str | None = None,
        retryable: bool | None = None,
        details: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        info = CODES.get(code, _UNKNOWN)
        self.code = code
        self.message = message
        self.hint = info.hint if hint is None else hint
        self.retryable = info.retryable if retryable is None else retryable
        self.details: dict[str, Any] = dict(details or {})

    def __str__(self) -> str:
        text = f"{self.message} ({self.code})"
        return f"{text}. {self.hint}" if self.hint else text

    def __reduce__(self) -> tuple[Any, ...]:
        # The default would call the class with `args`, which holds the message only.
        return _rebuild, (type(self), self.as_dict())

    def as_dict(self) -> dict[str, Any]:
        """The form that travels in messages, logs and `--json`."""
        return {
            "code": self.code,
            "message": self.message,
            "hint": self.hint,
            "retryable": self.retryable,
            "details": self.details,
        }

    @staticmethod
    def from_dict(data: dict[str, Any]) -> CapsuleError:
        """The error that a peer described, in the class that belongs to its code; missing fields get defaults."""
        return _rebuild(_CLASS_OF.get(str(data.get("code", "")), CapsuleError), data)


class LocalProtocolError(CapsuleError):
    """This end tried something that the protocol does not allow; nothing was sent."""


class RemoteProtocolError(CapsuleError):
    """The other end broke the protocol."""


class ArgumentError(CapsuleError, ValueError):
    """A caller's argument is wrong; the message names it and what is allowed."""

    def __init__(
        self, argument: str, message: str, *, allowed: object | None = None, code: str = "invalid_argument"
    ) -> None:
        text = f"{argument}: {message}" if allowed is None else f"{argument}: {message}; allowed: {allowed}"
        details: dict[str, Any] = {"argument": argument}
        if allowed is not None:
            details["allowed"] = str(allowed)
        super().__init__(code, text, details=details)

    @property
    def argument(self) -> str:
        """The name of the argument."""
        return str(self.details.get("argument", ""))


class SessionError(CapsuleError):
    """The session, its client or its node is not in a state to do this."""


class WorkerLost(CapsuleError):  # noqa: N818 (the word of the protocol, as the verdict `worker_lost`)
    """The worker of a session is gone, or could not be started."""


class EnvironmentFailed(CapsuleError):  # noqa: N818 (`EnvironmentError` is a builtin)
    """The environment of a session is unknown or could not be prepared; `details` may carry a traceback."""


class NodeError(CapsuleError):
    """The node cannot be reached, or its address cannot be used."""


class PoolError(CapsuleError):
    """The pool of an environment has no session to give."""


class StoreError(CapsuleError):
    """The durable store cannot be opened or cannot commit; its operator has to act."""


class CapabilityError(CapsuleError):
    """A call of a capability was not done, or not to its end; its subclasses say which it is."""

    outcome = "failed"


class CapabilityDenied(CapabilityError, PermissionError):  # noqa: N818 (the outcome of a call, as the two below)
    """The call is not allowed: no grant, outside of what the grant allows, not approved, too many."""

    outcome = "denied"


class CapabilityTimeout(CapabilityError, TimeoutError):  # noqa: N818
    """The call took longer than it may."""

    outcome = "timeout"


class CapabilityFailed(CapabilityError):  # noqa: N818
    """The call was allowed and could not be done."""


def capability_error(outcome: str, data: dict[str, Any]) -> CapabilityError:
    """The error of a call with this outcome; its code may be one that only the provider knows."""
    classes = (CapabilityDenied, CapabilityTimeout, CapabilityFailed)
    found = next((each for each in classes if each.outcome == outcome), CapabilityFailed)
    return _rebuild(found, data)


class ExecutionError(CapsuleError):
    """An execution ended in another verdict than ok; `result` is all that is known of it."""

    result: Any = None


DENIED = (
    "capability_unknown",
    "capability_denied",
    "capability_outside_grant",
    "capability_throttled",
    "capability_busy",
    "capability_isolated",
    "approval_denied",
    "audit_unavailable",
    "path_refused",
    "address_denied",
)
"""Codes of calls that were not allowed."""
FAILED = (
    "capability_invalid",
    "capability_failed",
    "capability_too_large",
    "capability_uncertain",
    "capability_canceled",
    "provider_unavailable",
    "secret_unknown",
    "path_unknown",
    "path_exists",
    "path_is_directory",
    "path_not_directory",
    "path_not_empty",
    "http_failed",
    "program_failed",
)
"""Codes of calls that were allowed and could not be done."""

_UNKNOWN = CodeInfo("a code of a newer version")
E = TypeVar("E", bound=CapsuleError)

_CLASS_OF: dict[str, type[CapsuleError]] = {
    # The first, since one of these is no matter of the code that ran: what stands further down counts.
    **{code: ExecutionError for code in CODES if code.startswith("execution_")},
    **dict.fromkeys(
        (
            "invalid_argument",
            "unknown_option",
            "unsupported",
            "policy_refused",
            "provider_refused",
            "root_exposes_node",
        ),
        ArgumentError,
    ),
    **dict.fromkeys(
        (
            "session_closed",
            "session_dead",
            "session_restarting",
            "queue_full",
            "client_closed",
            "node_closed",
            "too_many_sessions",
            "descriptors_exhausted",
            "internal_error",
            "session_unknown",
            "session_taken",
            "session_elsewhere",
            "session_killed",
            "session_watched",
            "session_shared",
            "subshell_unknown",
            "too_many_subshells",
            "too_many_watchers",
            "execution_unknown",
            "epoch_mismatch",
            "too_many_requests",
            "name_taken",
            "permission_denied",
            "quota_exceeded",
            "file_unknown",
            "file_refused",
            "file_changed",
            "checksum_mismatch",
            "transfer_failed",
            "too_many_transfers",
            "too_many_files",
            "checkpoint_refused",
            "checkpoint_mismatch",
            "checkpoint_too_large",
            "checkpoint_failed",
            "idempotency_conflict",
            "promise_unknown",
            "answer_refused",
            "promise_expired",
            "promise_settled",
            "promise_fenced",
        ),
        SessionError,
    ),
    **dict.fromkeys(
        (
            "node_unreachable",
            "connection_lost",
            "access_denied",
            "address_refused",
            "address_in_use",
            "too_many_clients",
        ),
        NodeError,
    ),
    **dict.fromkeys(("worker_lost", "worker_start_failed", "worker_start_timeout"), WorkerLost),
    **dict.fromkeys(("environment_unknown", "environment_failed"), EnvironmentFailed),
    **{code: PoolError for code in CODES if code.startswith("pool_")},
    **dict.fromkeys(DENIED, CapabilityDenied),
    **dict.fromkeys(("capability_timeout", "approval_expired"), CapabilityTimeout),
    **dict.fromkeys(FAILED, CapabilityFailed),
    **{code: StoreError for code in CODES if code.startswith("store_")},
    "audit_damaged": StoreError,
}


def _rebuild(cls: type[E], data: dict[str, Any]) -> E:
    """An error of `cls` from its dictionary, past the constructors of subclasses, which compose their message."""
    error = cls.__new__(cls)
    details = data.get("details")
    CapsuleError.__init__(
        error,
        str(data.get("code", "")),
        str(data.get("message", "")),
        hint=str(data.get("hint", "")),
        retryable=bool(data.get("retryable", False)),
        details=details if isinstance(details, dict) else None,
    )
    return error
