"""Running code: the request, its events, its verdict. The execution's id is in the header."""

# ruff: noqa: RUF012 (pydantic gives each instance its own copy of a default)
from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from capsule_protocol.answers import MAX_SECONDS, Terms
from capsule_protocol.messages.base import MAX_SUBSHELL, Count, Data, Message
from capsule_protocol.messages.comms import Said  # noqa: TC001 (pydantic evaluates it)

if TYPE_CHECKING:
    from capsule_protocol.errors import CapsuleError

MAX_EXPRESSIONS = 1000
"""User expressions of one execution."""

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Execute(Message):
    """Run code. `cell` names the source in tracebacks; `key` makes the request idempotent, together with its id.

    `if_epoch`: only if the session is in this epoch, so that nobody runs on an empty heap by mistake.
    `user_expressions`: expressions by names, whose values the verdict `ok` has. `payloads`: what IPython asks of its
    front end is told in the verdict. With `comm` there is no code: what the client says on a comm is handed to whom
    the code has registered for it, as an execution of its own; its buffers are those of the message. With `subshell`
    it runs there, beside what runs elsewhere. `follows`: the execution before it in its batch; it runs only if that one
    has not ended, or has in `ok`.
    """

    TYPE: ClassVar[str] = "execute"
    code: str
    quiet: bool = False
    store_history: bool = True
    allow_input: bool = False
    stop_on_error: bool = False
    batch: str = ""
    follows: str = ""
    cell: str | None = None
    executor: Literal["auto"] = "auto"
    timeout: Seconds | None = None
    key: str | None = None
    if_epoch: Count | None = None
    user_expressions: Annotated[dict[str, str], Field(max_length=MAX_EXPRESSIONS)] = {}
    payloads: bool = False
    comm: Said | None = None
    subshell: Annotated[str, Field(max_length=MAX_SUBSHELL)] = ""


class Output(Message):
    """Text that the code wrote, at most 64 KiB; `dropped` bytes right before it were lost to the backpressure mode."""

    TYPE: ClassVar[str] = "output"
    stream: Literal["stdout", "stderr"]
    text: str
    dropped: Count = 0


class Display(Message):
    """A MIME bundle. A value `{"$buffer": i}` stands for the message's buffer i; `update` replaces `display_id`.

    `transient` is what else code says of it that is not to be kept. With `execution_count` it is the value of an
    expression of the code with this number.
    """

    TYPE: ClassVar[str] = "display"
    data: Data
    metadata: Data = {}
    display_id: str | None = None
    update: bool = False
    transient: Data = {}
    execution_count: Count = 0
    fence: Count = 0


class ClearOutput(Message):
    """Forget what was shown; with `wait`, only when the next output comes."""

    TYPE: ClassVar[str] = "clear_output"
    wait: bool = False
    fence: Count = 0


class Progress(Message):
    """How far the code says it is; `total` None: unknown."""

    TYPE: ClassVar[str] = "progress"
    current: float | None = None
    total: float | None = None
    text: str = ""
    fence: Count = 0


class Result(Message):
    """The verdict ok. `data` shows the value of the last expression; `text` too, unless `data` has it as plain text.

    `dropped` bytes of output were lost to the backpressure mode in all. `user_expressions` are the outcomes of those
    that were asked for, and `payload` what IPython asks of its front end, if that is to be told. `shown`: a `display`
    before has the value already. `epoch` is that in which the code was sent to its worker.
    """

    TYPE: ClassVar[str] = "result"
    verdict: Literal["ok"] = "ok"
    text: str = ""
    data: Data = {}
    metadata: Data = {}
    execution_count: Count = 0
    duration: Seconds = 0.0
    dropped: Count = 0
    fence: Count = 0
    user_expressions: Data = {}
    payload: list[Data] = []
    shown: bool = False
    epoch: Count = 0


class Error(Message):
    """Any other verdict; or, with verdict "" and `reply_to`, the answer to a request that failed.

    `shown`: what was shown before tells of the error already. `epoch` is that in which the code was sent to its worker,
    0 if it was not.
    """

    TYPE: ClassVar[str] = "error"
    verdict: Literal["", "error", "timeout", "interrupted", "oom", "killed", "crashed", "worker_lost"] = ""
    name: str = ""
    message: str = ""
    traceback: list[str] = []
    code: str
    hint: str = ""
    retryable: bool = False
    execution_count: Count = 0
    duration: Seconds = 0.0
    dropped: Count = 0
    fence: Count = 0
    details: Data = {}
    reply_to: str = ""
    payload: list[Data] = []
    shown: bool = False
    epoch: Count = 0

    @classmethod
    def answer(cls, error: CapsuleError, reply_to: str = "") -> Error:
        """The answer to a request that failed; one of an unknown type is answered with `unsupported`."""
        fields = error.as_dict()
        if error.code == "unknown_type":
            fields["code"] = "unsupported"
        return cls(name=type(error).__name__, reply_to=reply_to, **fields)


class Cancel(Message):
    """End an execution, queued or running; `""` from a client: all of the session.

    A node answers with `done`, whether there was one, and of all with `count`, how many there were.
    """

    TYPE: ClassVar[str] = "cancel"
    execution: str


class Interrupt(Message):
    """Interrupt what the session in the header does now; a worker is told which execution of a subshell it is."""

    TYPE: ClassVar[str] = "interrupt"


class EventAck(Message):
    """The receiver has dealt with the events up to these numbers, by execution: they need not be kept for it."""

    TYPE: ClassVar[str] = "event_ack"
    executions: Annotated[dict[str, Count], Field(max_length=4096)]


class Resume(Message):
    """Send the events of the execution in the header again, from the one behind number `after` on."""

    TYPE: ClassVar[str] = "resume"
    after: Count


class Watching(Message):
    """To who watches a session: the events of the execution in the header follow, from number 1 on."""

    TYPE: ClassVar[str] = "watching"


class Gap(Message):
    """The `missing` events that end with this one's number are not kept any more; the next one follows them."""

    TYPE: ClassVar[str] = "gap"
    missing: Annotated[int, Field(ge=1)]


class InputRequest(Message):
    """The code waits for a line of text; `password`: do not show it. `promise`: that of the answer, if there is one.

    With `choices` or a `json_schema` the answer is JSON: one of these values, or what fits. `timeout`: for how long.
    Unless `waits`, another thread asks than the one that runs the code, whose time goes on.
    """

    TYPE: ClassVar[str] = "input_request"
    request: str
    prompt: str = ""
    password: bool = False
    promise: str = ""
    fence: Count = 0
    choices: list[Any] | None = None
    json_schema: Data | None = None
    timeout: Annotated[float, Field(gt=0, le=MAX_SECONDS)] | None = None
    waits: bool = True

    def model_post_init(self, _context: Any, /) -> None:
        """Only what an answer can be held to; ArgumentError is a ValueError."""
        Terms(self.choices, self.json_schema).check()


class InputReply(Message):
    """The line, or why there is none: `eof` (nobody will answer), `timeout`, or `canceled` (the question is void).

    `message` is what is to be said of that.
    """

    TYPE: ClassVar[str] = "input_reply"
    request: str
    value: str | None = None
    error: Literal["eof", "timeout", "canceled"] | None = None
    message: str = ""

    def model_post_init(self, _context: Any, /) -> None:
        """Exactly one of value and error."""
        if (self.value is None) == (self.error is None):
            raise ValueError("exactly one of value and error must be given")
