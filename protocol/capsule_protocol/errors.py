"""The taxonomy of errors: one root, classes by who must act, and one table of stable codes.

A code is what programs compare: the same string shows in Python, on the command line, in logs and on the wire. A class
says who must act: the caller (`ArgumentError`), this end of a link (`LocalProtocolError`), the other end
(`RemoteProtocolError`), whoever owns the session, or the author of the code that ran (`ExecutionError`).
"""

from __future__ import annotations

from typing import Any, NamedTuple


class CodeInfo(NamedTuple):
    """What a code means, what to do about it, and whether the same request may succeed when repeated."""

    meaning: str
    hint: str = ""
    retryable: bool = False


CODES: dict[str, CodeInfo] = {
    # The caller's arguments
    "invalid_argument": CodeInfo("an argument has a value that is not allowed"),
    "unknown_option": CodeInfo("an option of this name does not exist"),
    "unsupported": CodeInfo("the peer, or this build, does not have the feature that was asked for"),
    # The protocol
    "invalid_message": CodeInfo("a message cannot be read: its frames, header or body are not as the protocol says"),
    "message_too_large": CodeInfo(
        "a message is over a limit of the link", "Send less at once, or raise the limit that the message names."
    ),
    "unknown_type": CodeInfo("a message has a type that the receiver does not know"),
    "version_mismatch": CodeInfo(
        "the two ends of a link share no protocol version", "Update the older of the two programs."
    ),
    "unexpected_message": CodeInfo("a message came in a state in which it is not allowed"),
    "sequence_gap": CodeInfo("the events of an execution are not numbered 1, 2, 3 … up to the verdict"),
    "credit_exceeded": CodeInfo("a stream carried more bytes than its reader had given credit for"),
    # The verdicts that are not ok
    "execution_error": CodeInfo("the code raised an exception"),
    "execution_interrupted": CodeInfo("the execution was interrupted on request"),
    "execution_timeout": CodeInfo("the execution took longer than its time-out", "Raise `timeout`.", retryable=True),
    "execution_cancelled": CodeInfo("the execution was cancelled before it started", retryable=True),
    "execution_killed": CodeInfo(
        "the worker was killed while the code ran", "The session's state is gone; restart the session."
    ),
    "execution_crashed": CodeInfo(
        "the worker ended by itself while the code ran", "The session's state is gone; restart the session."
    ),
    "execution_oom": CodeInfo(
        "the worker ran out of memory", "Use less memory or raise the session's limit; restart the session."
    ),
    "process_limit_exceeded": CodeInfo(
        "the worker was killed because it had more processes than its session allows",
        "Start fewer processes or raise `max_processes`; restart the session.",
    ),
    "output_drain_timeout": CodeInfo("the output of an execution could not be handed over in time", retryable=True),
    "output_limit_exceeded": CodeInfo(
        "an execution wrote more output than its session allows",
        "Write less, raise `buffer_bytes`, or choose another backpressure mode.",
    ),
    "result_too_large": CodeInfo(
        "the value of the last expression is over the limit of a message",
        "End the cell with a smaller value, or raise `message_bytes`.",
    ),
    "no_input_client": CodeInfo("the code asked for input and no client can answer", "Pass `on_input`."),
    "input_timeout": CodeInfo("nobody answered a request for input in time", retryable=True),
    "input_canceled": CodeInfo("the question that the code asked was taken back", "Run the code again."),
    "comm_unknown": CodeInfo("the code has no comm of this id, or has registered no target of this name"),
    # Workers and environments
    "worker_lost": CodeInfo("the worker is gone or broke the protocol", "Restart the session.", retryable=True),
    "worker_start_failed": CodeInfo("a worker could not be started", retryable=True),
    "worker_start_timeout": CodeInfo("a worker did not become ready in time", retryable=True),
    "adoption_refused": CodeInfo("the box that a node left cannot be adopted: it is not this node's, or is gone"),
    "environment_unknown": CodeInfo("the configuration has no environment of this name"),
    "environment_failed": CodeInfo("the environment could not be prepared", "Read the traceback in the details."),
    # Pools
    "pool_closed": CodeInfo("the pool has been closed"),
    "pool_unavailable": CodeInfo(
        "no session is ready and none can be made now", "Correct the cause that the message names.", retryable=True
    ),
    "pool_timeout": CodeInfo(
        "the pool had no session in time", "Close sessions, or allow more of them.", retryable=True
    ),
    "pool_exhausted": CodeInfo(
        "as many wait for a session of the pool as may", "Wait for some of them.", retryable=True
    ),
    # Sessions, clients, nodes
    "session_closed": CodeInfo("the session has been closed", "Open a new session."),
    "session_dead": CodeInfo("the session's worker is dead", "Call `restart()`."),
    "session_restarting": CodeInfo("the session is being restarted", retryable=True),
    "queue_full": CodeInfo(
        "the session has as many requests waiting as it may", "Wait for some of them.", retryable=True
    ),
    "client_closed": CodeInfo("the client has been closed", "Create a new client."),
    "node_closed": CodeInfo("the node has been closed"),
    "too_many_sessions": CodeInfo("the node has as many sessions as it may", "Close one of them.", retryable=True),
    "descriptors_exhausted": CodeInfo(
        "the node has no file descriptor left for another session",
        "Close sessions, or allow the node more open files.",
        retryable=True,
    ),
    "request_timeout": CodeInfo("a request was not answered in time", retryable=True),
    "internal_error": CodeInfo("the node made a mistake of its own", "Report it, with what the node has logged."),
    "session_unknown": CodeInfo("the node has no session of this name or id for this client"),
    "session_taken": CodeInfo("another client has taken the session over", "Attach to it to take it back."),
    "session_elsewhere": CodeInfo(
        "the session belongs to another node of the same store", "Connect to the node that the message names."
    ),
    "session_killed": CodeInfo("an operator has ended the session", "Open a new session."),
    "session_watched": CodeInfo(
        "this client only watches the session", "Attach to it without `watch` to have it run code."
    ),
    "too_many_watchers": CodeInfo("the session has as many watchers as it may", retryable=True),
    "execution_unknown": CodeInfo("the node has no execution of this id, or has forgotten it"),
    "epoch_mismatch": CodeInfo(
        "the session is in another epoch: its state is not the one that was meant",
        "Make the state anew, then run the code without `if_epoch`, or with the present epoch.",
    ),
    "too_many_requests": CodeInfo(
        "the client has as many requests under way as it may", "Wait for some of them.", retryable=True
    ),
    "node_unreachable": CodeInfo(
        "no node answers at the address", "Start one with `capsule serve`, or correct the address.", retryable=True
    ),
    "connection_lost": CodeInfo("the connection to the node was lost and did not come back in time", retryable=True),
    "address_in_use": CodeInfo("another node listens at the address", "Stop it, or choose another address."),
    "too_many_clients": CodeInfo("the node has as many connections as it may", retryable=True),
    # Files of a session
    "file_unknown": CodeInfo("the session has no file of this name", "`files()` tells which there are."),
    "file_refused": CodeInfo(
        "the name leads to no regular file below the session's directory",
        "Use `'name'` or `'folder/name'`, of a regular file that is not a link.",
    ),
    "file_changed": CodeInfo(
        "the file was changed or taken away while it was transferred", "Transfer it when the code is done with it."
    ),
    "checksum_mismatch": CodeInfo("what arrived is not what was sent; nothing was kept of it", retryable=True),
    "transfer_failed": CodeInfo("a file could not be read or written", "Read the message: the disk may be full."),
    "too_many_transfers": CodeInfo(
        "the session has as many transfers under way as it may", "Wait for some of them.", retryable=True
    ),
    "too_many_files": CodeInfo("the session has more files than can be listed", "Remove some, or put them together."),
    # What was saved of a session
    "checkpoint_refused": CodeInfo(
        "the file is no checkpoint that this node has made for this principal, as it is now",
        "Restore the file as it was saved, at the node that saved it.",
    ),
    "checkpoint_mismatch": CodeInfo(
        "the session's interpreter or its packages are not those that the checkpoint needs",
        "Open a session in an environment that has what the message names.",
    ),
    "checkpoint_too_large": CodeInfo(
        "a checkpoint is larger than the node allows",
        "Save fewer `names`, or raise the limit that the message names.",
    ),
    "checkpoint_failed": CodeInfo(
        "the session could not be saved or restored", "Read the message: it says what stood in the way."
    ),
    "name_taken": CodeInfo("there is a session of this name", "Attach to it, or choose another name."),
    "access_denied": CodeInfo(
        "the node does not let this client in", "Check the key; `capsule keys list` shows which ones are valid."
    ),
    "permission_denied": CodeInfo("the role of the principal is too small for this"),
    "quota_exceeded": CodeInfo("the principal uses as much as it may", "Wait, or end something.", retryable=True),
    "address_refused": CodeInfo("the address or its directory is not safe to use"),
    # Durable promises
    "idempotency_conflict": CodeInfo(
        "the idempotency key, or the promise's id, was used before with another request",
        "Use a key of its own for each request.",
    ),
    "promise_unknown": CodeInfo("there is no promise of this id"),
    "answer_refused": CodeInfo(
        "the answer is none that the question allows; the question stays open", "Give one that the message names."
    ),
    "promise_expired": CodeInfo("the promise was kept as long as its store keeps them, and has been forgotten"),
    "promise_settled": CodeInfo("the promise has its verdict, and nothing can be added to it"),
    "promise_fenced": CodeInfo("the promise has been taken over: who owned it before may not settle it"),
    "store_unavailable": CodeInfo(
        "the durable store cannot commit; whether it kept what was asked for is not known",
        "Correct the cause that the message names, and ask again with the same key.",
        retryable=True,
    ),
    "store_locked": CodeInfo("another node uses the store", "Stop it, or give this node a store of its own."),
    "store_refused": CodeInfo("the file or the database is not a store that this version can use"),
    "store_damaged": CodeInfo(
        "the file of the durable store is damaged",
        "Stop the node and keep a copy of all its files; `capsule store check` tells what is wrong.",
    ),
    "store_closed": CodeInfo("the store has been closed"),
}
"""Every code that can cross the wire or reach a user."""


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


class ExecutionError(CapsuleError):
    """An execution ended in another verdict than ok; `result` is all that is known of it."""

    result: Any = None


_UNKNOWN = CodeInfo("a code of a newer version")

_CLASS_OF: dict[str, type[CapsuleError]] = {
    # The first, since one of these is no matter of the code that ran: what stands further down counts.
    **{code: ExecutionError for code in CODES if code.startswith("execution_")},
    **dict.fromkeys(("invalid_argument", "unknown_option", "unsupported"), ArgumentError),
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
    **{code: StoreError for code in CODES if code.startswith("store_")},
}


def _rebuild(cls: type[CapsuleError], data: dict[str, Any]) -> CapsuleError:
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
