"""What a worker's messages mean: each is checked against what the session expects, then acted upon.

Anything that an honest worker cannot send raises RemoteProtocolError, which costs the worker its life.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from capsule.events import ClearOutput, CommMessage, DebugEvent, Display, Progress
from capsule.node.asking import Answer, Question
from capsule.node.late import Late
from capsule.node.verdicts import of_error, output_limit
from capsule.wire import to_event, with_buffers
from capsule_protocol.errors import RemoteProtocolError
from capsule_protocol.states import COMMS, STREAMS

if TYPE_CHECKING:
    from collections.abc import Callable

    from capsule.events import Event
    from capsule.node.dispatch import Dispatch
    from capsule.node.execution import Execution
    from capsule.node.lanes import Lanes
    from capsule.node.questions import Questions
    from capsule_protocol.envelope import Envelope
    from capsule_protocol.messages import Message
    from capsule_protocol.messages import execution as words


CALLS = STREAMS | {"capability_request", "capability_cancel"}
"""What concerns the calls of capabilities."""


class Actions(Protocol):
    """What the inbox asks of its session."""

    def on_pulse(self, message: Any) -> None:
        """A heartbeat was answered."""

    def on_late(self, event: Event) -> None:
        """An event that belongs to no stream."""

    def send_input(self, request: str, answer: Answer) -> None:
        """Answer a request for input."""

    def on_call(self, message: Any, envelope: Envelope) -> None:
        """Something about the call of a capability, of an execution that there is or was."""


class Inbox:
    """The handlers of one session, by message type."""

    def __init__(self, lineup: Lanes, questions: Questions, dispatch: Dispatch, actions: Actions) -> None:
        self._lineup = lineup
        self._questions = questions
        self._dispatch = dispatch
        self._actions = actions
        self.late = Late()
        """What the worker may still say of executions that have ended."""
        self._handlers: dict[str, Callable[[Any, Envelope], None]] = {
            "result": self._result,
            "error": self._error,
            "display": self._display,
            "clear_output": self._clear_output,
            "progress": self._progress,
            "input_request": self._input_request,
            **dict.fromkeys(COMMS, self._comm),
        }

    def on_event(self, message: Any, envelope: Envelope) -> None:
        """A message that has a place among the output."""
        self._handlers[envelope.type](message, envelope)

    def on_message(self, message: Any, envelope: Envelope) -> None:
        """A message without one."""
        kind = envelope.type
        if kind == "heartbeat":
            self._actions.on_pulse(message)
        elif kind == "debug_event":
            self._actions.on_late(DebugEvent("", 0, message.event))
        elif kind in CALLS:
            if envelope.execution:
                self._execution(envelope)
            self._actions.on_call(message, envelope)
        elif kind.endswith("_reply") and hasattr(message, "reply_to"):
            self._questions.take(message.reply_to, envelope)
        else:
            raise RemoteProtocolError("unexpected_message", f"a worker may not send {kind}")

    def _result(self, message: words.Result, envelope: Envelope) -> None:
        execution = self._settled(envelope)
        if execution.verdict is not None:
            self._settle(execution, given_up=True)
            return
        if execution.limit_exceeded:
            self._rule(execution, message, *output_limit(execution, []))
            return
        execution.finish(
            "ok",
            text=message.text or str(message.data.get("text/plain", "")),
            data=with_buffers(message.data, envelope),
            metadata=message.metadata,
            execution_count=message.execution_count,
            duration=message.duration,
            user_expressions=message.user_expressions,
            payload=message.payload,
            shown=message.shown,
        )
        self._settle(execution)

    def _error(self, message: words.Error, envelope: Envelope) -> None:
        if message.reply_to:
            self._questions.take(message.reply_to, envelope)
            return
        execution = self._settled(envelope, message.code)
        if execution.verdict is not None:
            self._settle(execution, given_up=True)
            return
        self._rule(execution, message, *of_error(message, execution))

    def _rule(self, execution: Execution, message: Any, verdict: Any, error: Any) -> None:
        execution.finish(
            verdict,
            error=error,
            execution_count=message.execution_count,
            duration=message.duration,
            payload=message.payload,
            shown=message.shown and getattr(message, "code", "") == error.code,
        )
        self._settle(execution)

    def _settled(self, envelope: Envelope, code: str = "") -> Execution:
        """The execution that a verdict is for: the oldest one of a shell, or one that was cancelled before its turn."""
        execution = self._lineup.sent(envelope.execution)
        if execution is None:
            raise _unknown(envelope)
        cancelled = execution.cancelled or (execution.inherited and code == "execution_cancelled")
        if not self._lineup.is_due(execution) and not cancelled:
            raise RemoteProtocolError("unexpected_message", "a verdict came before that of an earlier execution")
        return execution

    def _settle(self, execution: Execution, *, given_up: bool = False) -> None:
        """It has its verdict; `given_up`: it had one before its worker gave one."""
        self.late.remember(execution.serial, execution.id)
        self._dispatch.settle(execution, given_up=given_up)

    def _display(self, message: words.Display, envelope: Envelope) -> None:
        event = to_event(message, envelope._replace(sequence=0))
        assert isinstance(event, Display)
        execution = self._execution(envelope)
        if execution is None:
            self._actions.on_late(event)
        else:
            execution.display(event)

    def _clear_output(self, message: words.ClearOutput, envelope: Envelope) -> None:
        execution = self._execution(envelope)
        if execution is None:
            self._actions.on_late(ClearOutput(envelope.execution, 0, message.wait))
        else:
            execution.clear_output(wait=message.wait)

    def _progress(self, message: words.Progress, envelope: Envelope) -> None:
        execution = self._execution(envelope)
        if execution is None:
            self._actions.on_late(Progress(envelope.execution, 0, message.current, message.total, message.text))
        else:
            execution.progress(message.current, message.total, message.text)

    def _comm(self, message: Message, envelope: Envelope) -> None:
        event = to_event(message, envelope._replace(sequence=0))
        assert isinstance(event, CommMessage)
        execution = self._execution(envelope)
        if execution is None:
            self._actions.on_late(event)
        else:
            execution.comm(event)

    def _input_request(self, message: words.InputRequest, envelope: Envelope) -> None:
        # Late code may ask too, while the next cell runs: whoever is asked now can answer.
        execution = self._execution(envelope) or self._lineup.head
        if execution is None:
            self._actions.send_input(message.request, Answer(None, "eof"))
        else:
            asked = (message.request, message.prompt, message.password)
            question = Question(*asked, message.choices, message.json_schema, message.timeout, message.waits)
            execution.ask_input(question)

    def _execution(self, envelope: Envelope) -> Execution | None:
        """The execution of an event; None if it has ended, or if the event belongs to the session."""
        execution = self._lineup.sent(envelope.execution)
        if execution is None and not self.late.knows(envelope.execution):
            raise _unknown(envelope)
        return execution


def _unknown(envelope: Envelope) -> RemoteProtocolError:
    return RemoteProtocolError(
        "unexpected_message", f"{envelope.type} is for an execution that the worker does not have"
    )
