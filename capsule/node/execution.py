"""One execution as the node keeps it: what was asked, how far it is, and the events for its one consumer."""

from __future__ import annotations

from codecs import utf_8_decode
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, Protocol, Unpack

from capsule.events import ClearOutput, CommMessage, Display, Finished, InputRequest, Output, Progress, Started, Status
from capsule.node.asking import Answer, raise_error
from capsule.node.channel import CHUNK_BYTES, STREAMS, Channel
from capsule.node.inputs import MAX_QUESTIONS, Inputs
from capsule.node.requests import ExecuteRequest, Turn
from capsule.wire import size_of
from capsule_protocol.errors import ArgumentError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Callable, Sequence

    from capsule.config import SessionOptions
    from capsule.events import ErrorInfo, Event, Verdict
    from capsule.node.asking import InputError, OnRefused, Question
    from capsule.node.heard import Heard
    from capsule.node.ladder import Ladder
    from capsule.node.points import Points
    from capsule.node.verdicts import Said

__all__ = ["ExecuteRequest", "Execution", "ExecutionState", "Host", "Turn"]

ExecutionState = Literal["queued", "running", "done"]


class Host(Protocol):
    """What an execution asks of its session."""

    options: SessionOptions

    @property
    def epoch(self) -> int:
        """That of the session."""

    def number_of(self, execution: Execution) -> int:
        """The number of an execution which begins now, 0 if it has none, or none that is known."""

    def on_full(self, execution: Execution) -> None:
        """The execution's buffer is at its bound."""

    def on_room(self, execution: Execution) -> None:
        """There is room again."""

    def on_started(self, execution: Execution) -> None:
        """The code runs."""

    def on_late(self, event: Event) -> None:
        """An event that belongs to no stream any more."""

    def on_released(self) -> None:
        """An execution that was held may be sent."""

    def send_input(self, request: str, answer: Answer) -> None:
        """Answer a request of the worker."""


class Execution:
    """The consumer iterates over it, or calls `next_event`, until `Finished`; or it calls `finished` and nothing else.

    The other methods belong to the session.
    """

    __slots__ = (
        "_channel",
        "_clearance",
        "_heard",
        "_held",
        "_host",
        "_loop",
        "_reading",
        "_rests",
        "_waiters",
        "cancelled",
        "id",
        "inputs",
        "ladder",
        "limit_exceeded",
        "missing",
        "points",
        "request",
        "serial",
        "session",
        "state",
        "stopped",
        "verdict",
    )

    def __init__(self, execution_id: str, host: Host, request: ExecuteRequest, loop: asyncio.AbstractEventLoop) -> None:
        self.id = execution_id
        self.session = host
        self.request = request
        self.serial = 0
        self.state: ExecutionState = "queued"
        self.verdict: Finished | None = None
        self.stopped: Sequence[Execution] = ()
        """Those of its batch that were cancelled because of it."""
        self.ladder: Ladder | None = None
        self.points: Points | None = None
        self.missing = 0
        """Events before the first that is told here which were lost with another node."""
        self.cancelled = False
        self.limit_exceeded = False
        self.inputs = Inputs(self, loop)
        """What the code waits for, and its time."""
        self._host = host
        self._loop = loop
        self._reading = False
        self._rests = [b"", b""]
        self._heard: Heard | None = None
        self._waiters: list[asyncio.Future[None]] = []
        self._clearance: Callable[[], object] | None = None
        self._held = False
        options = host.options
        self._channel = Channel(execution_id, options.backpressure, options.buffer_bytes, self._full, self._room)

    # --- the consumer's side ---

    async def next_event(self) -> Event:
        """The next event; after `Finished`, `Finished` again. Only one consumer may wait."""
        channel = self._channel
        while (event := self.take()) is None:
            if self.verdict is not None:
                return self.verdict
            await channel.wait(self._loop)
        return event

    def take(self) -> Event | None:
        """The next event if there is one now."""
        self._reading = True
        event = self._channel.take()
        if self.points is not None and event is not None and not self._channel.pending:
            self.points.taken(self)
        return event

    def confirm(self, number: int) -> None:
        """The events up to this number are dealt with for good: a node that takes the place of this one has them."""
        if self.points is not None:
            self.points.confirm(self.id, number)

    def mark(self) -> int:
        """The number of the newest event so far, taken or not."""
        return self._channel.mark()

    def last(self) -> int:
        """The number of the last event before the verdict, if that comes now."""
        if self.verdict is None:
            self._flush_decoders()
        return self.mark()

    def listen(self, on_ready: Callable[[], object]) -> None:
        """Have this called whenever there may be an event to take, instead of waiting for it."""
        self._reading = True
        self._channel.listen(on_ready)

    def __aiter__(self) -> AsyncIterator[Event]:
        return self._events()

    async def _events(self) -> AsyncIterator[Event]:
        while not self._channel.ended:
            yield await self.next_event()

    async def finished(self) -> Finished:
        """Wait for the verdict. If nobody has begun to read the events, they are thrown away."""
        if not self._reading:
            self._channel.discard()
        return await self.ended()

    async def ended(self) -> Finished:
        """Wait for the verdict, while somebody else reads the events."""
        while self.verdict is None:
            waiter = self._loop.create_future()
            self._waiters.append(waiter)
            await waiter
        return self.verdict

    def reply_input(
        self,
        request_id: str,
        value: str | None,
        error: InputError | None = None,
        on_refused: OnRefused = raise_error,
    ) -> None:
        """Answer an `InputRequest`, with text or with why there is none. Raises ArgumentError for an unknown one.

        An answer that the question does not allow is told to `on_refused`, now or when the promise was looked up.
        """
        if (value is None) == (error is None):
            raise ArgumentError("value", "exactly one of value and error must be given", allowed="text, or an error")
        self.inputs.reply(request_id, Answer(value, error), on_refused)

    def hold(self, clearance: Callable[[], object]) -> None:
        """Do not send it to the worker before `release`; the function is called once, when it is due."""
        self._clearance = clearance

    def release(self) -> None:
        """It may be sent."""
        self._clearance = None
        self._held = False
        self._host.on_released()

    # --- the session's side ---

    @property
    def told(self) -> int:
        """The number of the last event that was taken."""
        return self._channel.number

    @property
    def pending(self) -> bool:
        """Whether there is an event to take that somebody is going to, or that a question will become."""
        return self._channel.pending or not self.inputs.told

    @property
    def discarding(self) -> bool:
        """Whether nobody is going to take any."""
        return self._channel.discarding

    @property
    def rests(self) -> list[bytes]:
        """Of each stream, the beginning of a character that is not whole."""
        return self._rests

    @property
    def inherited(self) -> bool:
        """Whether its worker has it from another node, which may have cancelled it as well."""
        return self._heard is not None

    def go_on(self, number: int, rests: list[bytes], heard: Heard) -> None:
        """Go on behind the events that another node has told; of what comes, `heard` is known already."""
        self._channel.go_on(number)
        self._rests, self._heard = rests, heard
        if number:
            self.state = "running"

    def clear(self) -> bool:
        """Whether it may be sent now; if not, whoever holds it has been asked to release it."""
        clearance, self._clearance = self._clearance, None
        if clearance is not None:
            self._held = True
            clearance()
        return not self._held

    def begin(self) -> None:
        """The worker runs the code from now on, at the latest. Idempotent."""
        if self.state == "queued":
            self.state = "running"
            count = self._host.number_of(self)
            self._channel.put_event(lambda number: Started(self.id, number, count), 0)
            self._host.on_started(self)

    def output(self, stream: int, data: bytes) -> None:
        """Bytes of a pipe that belong to this execution."""
        if self.state == "queued":
            self.begin()
        for start in range(0, len(data), CHUNK_BYTES):
            piece = data[start : start + CHUNK_BYTES]  # the same object when it is all
            size = len(piece)
            text = self._decode(stream, piece)
            if self._heard is not None:
                text = self._heard.unheard(stream, text)
            if not text:
                continue
            if self.verdict is None:
                self._channel.put_text(stream, text, size)
            else:
                self._host.on_late(Output(self.id, 0, STREAMS[stream], text))

    def status(self, state: str, reason: str) -> None:
        """Tell a step of the ladder."""
        self._put(lambda number: Status(self.id, number, state, reason))

    def display(self, event: Display) -> None:
        """Something to show."""
        if not self._is_heard(Display):
            size, outcome = size_of(event), event.is_outcome
            self._put(lambda number: replace(event, sequence=number), size, droppable=True, outcome=outcome)

    def clear_output(self, *, wait: bool) -> None:
        """Forget what was shown."""
        if not self._is_heard(ClearOutput):
            self._put(lambda number: ClearOutput(self.id, number, wait), droppable=True)

    def comm(self, event: CommMessage) -> None:
        """The code says something on a comm."""
        if not self._is_heard(CommMessage):
            self._put(lambda number: replace(event, sequence=number), size_of(event), droppable=True)

    def progress(self, current: float | None, total: float | None, text: str) -> None:
        """How far the code is."""
        if not self._is_heard(Progress):
            self._put(lambda number: Progress(self.id, number, current, total, text), droppable=True)

    def ask_input(self, question: Question) -> None:
        """The code waits for an answer. If nobody reads the events, nobody will give one."""
        request = question.request
        if self.verdict is not None or self._channel.discarding or not self.request.allow_input:
            self._host.send_input(request, Answer(None, "eof"))
        elif self.inputs.full:
            self._host.send_input(request, Answer(None, "eof", f"{MAX_QUESTIONS} questions are open already"))
        else:
            self.inputs.ask(question, told=self._is_heard(InputRequest))

    def tell_question(self, question: Question, promise: str = "") -> None:
        """Tell the client what the code asks, unless it waits no more; whose answer counts, a promise may decide."""
        request, prompt, password, choices, schema, *_ = question
        timeout = question.patience(self._host.options.input_timeout)
        if self.inputs.tell(request):
            terms = (choices, schema, timeout)
            size = 256 + len(prompt) + len(question.terms.words())
            self._put(lambda number: InputRequest(self.id, number, request, prompt, password, promise, *terms), size)

    def hurry(self) -> None:
        """The execution is being ended: do not wait for a slow reader any more."""
        self._channel.hurry()

    def calm(self) -> None:
        """It is not being ended any more, and goes on."""
        self._channel.calm()

    def finish(self, verdict: Verdict, *, error: ErrorInfo | None = None, **said: Unpack[Said]) -> None:
        """The verdict; only the first one counts."""
        if self.verdict is not None:
            return
        if self._rests[0] or self._rests[1]:
            self._flush_decoders()
        channel = self._channel
        if channel.torn and said.get("shown"):
            said["shown"] = False  # what it relies on may be what was dropped; the verdict has it in any case
        epoch = self._host.epoch if self.serial else 0
        self.verdict = channel.close(
            lambda number: Finished(self.id, number, verdict, error=error, dropped=channel.dropped, epoch=epoch, **said)
        )
        self.state = "done"
        if self.ladder is not None:
            self.ladder.stop()
        self.inputs.end()
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()
        if self.points is not None and channel.discarding:
            self.points.taken(self)

    # --- inside ---

    def _is_heard(self, kind: type[Event]) -> bool:
        return self._heard is not None and self._heard.has(kind)

    def _put(self, make: Any, size: int = 256, *, droppable: bool = False, outcome: bool = False) -> None:
        if self.verdict is not None:
            self._host.on_late(make(0))
            return
        self._channel.put_event(make, size, droppable=droppable, outcome=outcome)

    def _decode(self, stream: int, data: bytes) -> str:
        """UTF-8 that may be cut anywhere; what cannot be decoded is replaced."""
        rest = self._rests[stream]
        if rest:
            data = rest + data
        text, used = utf_8_decode(data, "replace", False)  # noqa: FBT003 - positional only
        self._rests[stream] = data[used:] if used < len(data) else b""
        return text

    def _flush_decoders(self) -> None:
        for stream, rest in enumerate(self._rests):
            if rest:
                self._channel.put_text(stream, rest.decode("utf-8", "replace"), len(rest))
        self._rests = [b"", b""]

    def _full(self) -> None:
        self._host.on_full(self)

    def _room(self) -> None:
        self._host.on_room(self)
