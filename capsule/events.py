"""The events of an execution: what a client sees, in order, ending in exactly one `Finished`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, cast

from capsule_protocol.answers import Terms
from capsule_protocol.codes import CODES

Verdict = Literal["ok", "error", "timeout", "interrupted", "oom", "killed", "crashed", "worker_lost"]
"""How an execution can end; each accepted execution ends in exactly one of these."""


@dataclass(frozen=True, slots=True)
class ErrorInfo:
    """Why an execution did not end in `ok`.

    `name` and `message` are those of the exception (`ValueError`, its text) or, where no exception ended the code, of
    the verdict. `traceback` is a list of lines with source text, without terminal colours. `code` is the stable code.
    `retryable`: whether it may be asked for again; unless told otherwise, as the table says of the code.
    """

    name: str
    message: str
    traceback: list[str] = field(default_factory=list)
    code: str = "execution_error"
    hint: str = ""
    details: dict[str, Any] = field(default_factory=dict)
    retryable: bool = cast("bool", None)

    def __post_init__(self) -> None:
        if self.retryable is None:
            known = CODES.get(self.code)
            object.__setattr__(self, "retryable", known is not None and known.retryable)


@dataclass(frozen=True, slots=True)
class Event:
    """What every event has: the execution it belongs to and its number there (1, 2, 3 …; 0: after the verdict)."""

    execution_id: str
    sequence: int


@dataclass(frozen=True, slots=True)
class Started(Event):
    """The worker has been given the code; nothing precedes it. `execution_count` will be its, 0: not known."""

    execution_count: int = 0


@dataclass(frozen=True, slots=True)
class Output(Event):
    """At most 64 KiB of text; `dropped` counts the bytes lost right before it to the backpressure mode."""

    stream: Literal["stdout", "stderr"]
    text: str
    dropped: int = 0


ERROR = "application/vnd.jupyter.error"
"""The MIME type of an error that is shown."""


@dataclass(frozen=True, slots=True)
class Display(Event):
    """A rich display: a MIME bundle. `update` means: replace the display with the same `display_id`.

    `transient` is what else the code has said of it, for front ends. With an `execution_count` it is no display of the
    code's but the value of one of its expressions.
    """

    data: dict[str, Any]
    metadata: dict[str, Any]
    display_id: str | None = None
    update: bool = False
    transient: dict[str, Any] = field(default_factory=dict)
    execution_count: int = 0

    @property
    def is_outcome(self) -> bool:
        """Whether it tells what code came to, a value or an error; a verdict that is `shown` relies on it."""
        return bool(self.execution_count) or ERROR in self.data


@dataclass(frozen=True, slots=True)
class ClearOutput(Event):
    """Forget what was shown; with `wait`, only when the next output comes."""

    wait: bool


@dataclass(frozen=True, slots=True)
class Progress(Event):
    """How far the code says it is; `total` None: unknown."""

    current: float | None
    total: float | None
    text: str


@dataclass(frozen=True, slots=True)
class CommMessage(Event):
    """What the code says on a comm, Jupyter's channel between its objects and those of a front end.

    `open` has the `target` that the front end is to open it to; `buffers` are raw bytes beside the `data`.
    """

    action: Literal["open", "message", "close"]
    comm: str
    data: dict[str, Any]
    metadata: dict[str, Any]
    target: str = ""
    buffers: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class DebugEvent(Event):
    """An event of the debugger, as the Debug Adapter Protocol has it; always numbered 0, and of no execution."""

    event: dict[str, Any]


@dataclass(frozen=True, slots=True)
class InputRequest(Event):
    """The code waits in `input()`, `getpass()` or `capsule_ask()`; answer by `request`.

    `promise`: at a node that keeps promises, the one by which the question can be answered from elsewhere, too. With
    `choices` or a `schema` the answer is a JSON value, one of these or one that fits; else a line of text. `timeout`:
    for how many seconds the question is open; None: for ever. `refused`: what was wrong with the last answer.
    """

    request: str
    prompt: str
    password: bool
    promise: str = ""
    choices: list[Any] | None = None
    schema: dict[str, Any] | None = None
    timeout: float | None = None
    refused: str = ""

    @property
    def terms(self) -> Terms:
        """What is allowed as its answer."""
        return Terms(self.choices, self.schema)


@dataclass(frozen=True, slots=True)
class Status(Event):
    """A step of the ladder that ends an execution.

    `interrupting`, `interrupting_again`, `killing`, or `unresponsive` where nothing is killed.
    """

    state: str
    reason: str


@dataclass(frozen=True, slots=True)
class Gap(Event):
    """The `missing` events up to this one's number are lost: the node does not keep everything for ever."""

    missing: int


@dataclass(frozen=True, slots=True)
class Finished(Event):
    """The verdict, always last. `text` and `data` show the value of the last expression (`""`, `{}` for None).

    `user_expressions` and `payload` are as in Jupyter's `execute_reply`, if they were asked for. `shown`: what came
    before tells of the value, or of the error, already. `epoch`: that of the session in which the code was sent to its
    worker, whose state it has changed; 0 if it was not.
    """

    verdict: Verdict
    text: str = ""
    data: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    error: ErrorInfo | None = None
    execution_count: int = 0
    duration: float = 0.0
    dropped: int = 0
    user_expressions: dict[str, Any] = field(default_factory=dict)
    payload: list[dict[str, Any]] = field(default_factory=list)
    shown: bool = False
    epoch: int = 0
