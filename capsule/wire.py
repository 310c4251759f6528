"""Events as messages of the client link, and back."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from msgpack import Unpacker, UnpackException, packb

from capsule import events as told
from capsule.comms import CommRequest
from capsule_protocol.envelope import Envelope
from capsule_protocol.errors import RemoteProtocolError
from capsule_protocol.messages import comms, parse

if TYPE_CHECKING:
    from collections.abc import Callable

    from capsule.comms import Action
    from capsule.node.execution import ExecuteRequest
    from capsule_protocol.envelope import Buffer
    from capsule_protocol.messages import Message
    from capsule_protocol.messages import execution as words
    from capsule_protocol.messages.comms import Said
    from capsule_protocol.messages.session import Status

LARGE = 1024
"""Bytes from which on a binary value travels in a frame of its own."""


class Wired(NamedTuple):
    """An event as a message: type, body, buffers."""

    type: str
    body: dict[str, Any]
    buffers: tuple[Buffer, ...] = ()


def to_message(event: told.Event) -> Wired:
    """The message that tells of an event."""
    return _TO[type(event)](event)


def to_event(message: Message, envelope: Envelope) -> told.Event:
    """The event that a message of an execution tells of. Raises RemoteProtocolError for buffers that are not there."""
    event: told.Event = _FROM[envelope.type](message, envelope)
    return event


def pack_event(event: told.Event) -> bytes:
    """An event as it is logged: type, body and buffers of the message that tells of it."""
    packed: bytes = packb(to_message(event), use_bin_type=True, unicode_errors="backslashreplace")
    return packed


def unpack_event(data: bytes, execution: str, sequence: int) -> told.Event:
    """An event of a log. Raises RemoteProtocolError for what is none."""
    (event,) = unpack_events(data, execution, sequence)
    return event


def unpack_events(data: Buffer, execution: str, first: int) -> list[told.Event]:
    """Events of a log, one behind the other, numbered from `first`. Raises RemoteProtocolError for what are none."""
    unpacker = Unpacker(max_buffer_size=0)
    unpacker.feed(data)
    events = []
    try:
        for number, (kind, body, buffers) in enumerate(unpacker, first):
            envelope = Envelope(kind, body, "", "", execution, number, 0.0, tuple(buffers))
            events.append(to_event(parse(envelope), envelope))
    except (ValueError, TypeError, UnpackException) as error:
        raise RemoteProtocolError("invalid_message", f"an event of a log cannot be read: {error}") from error
    return events


def size_of(event: told.Event) -> int:
    """Roughly the bytes that an event takes, here and on its way."""
    match event:
        case told.Output():
            return 128 + len(event.text)
        case told.Display():
            return 512 + weight(event.data) + weight(event.metadata) + weight(event.transient)
        case told.InputRequest():
            return 512 + len(event.prompt) + len(event.terms.words())
        case told.CommMessage():
            return 512 + weight(event.data) + sum(map(len, event.buffers))
        case told.DebugEvent():
            return 128 + weight(event.event)
        case told.Finished():
            parts = (event.data, event.metadata, event.user_expressions, event.payload)
            return 512 + len(event.text) + sum(map(weight, parts)) + _size_of_error(event.error)
    return 128


def weight(value: Any) -> int:
    """Roughly the bytes of what JSON can hold."""
    if isinstance(value, str | bytes):
        return 16 + len(value)
    if isinstance(value, dict):
        return 64 + sum(len(key) + weight(item) for key, item in value.items())
    if isinstance(value, list):
        return 64 + sum(map(weight, value))
    return 16


def _size_of_error(error: told.ErrorInfo | None) -> int:
    return 0 if error is None else len(error.message) + weight(error.traceback) + weight(error.details)


def execute_body(request: ExecuteRequest) -> dict[str, Any]:
    """What `execute` says of a request, to a node and to a worker; what goes without saying is not said."""
    body: dict[str, Any] = {"code": request.code}
    if request.quiet:
        body["quiet"] = True
    if not request.store_history:
        body["store_history"] = False
    if request.allow_input:
        body["allow_input"] = True
    if request.stop_on_error:
        body["stop_on_error"] = True
    if request.batch:
        body["batch"] = request.batch
    if request.follows:
        body["follows"] = request.follows
    if request.cell is not None:
        body["cell"] = request.cell
    if request.if_epoch is not None:
        body["if_epoch"] = request.if_epoch
    if request.user_expressions or request.payloads or request.comm is not None or request.subshell:
        body |= _wishes_of_front_ends(request)
    return body


def _wishes_of_front_ends(request: ExecuteRequest) -> dict[str, Any]:
    body: dict[str, Any] = {}
    if request.user_expressions:
        body["user_expressions"] = request.user_expressions
    if request.payloads:
        body["payloads"] = True
    if request.comm is not None:
        body["comm"] = request.comm.body()
    if request.subshell:
        body["subshell"] = request.subshell
    return body


def buffers_of(request: ExecuteRequest) -> tuple[bytes, ...]:
    """The buffers of the message that `execute_body` is the body of."""
    return request.comm.buffers if request.comm is not None else ()


def comm_request(said: Said | None, envelope: Envelope) -> CommRequest | None:
    """What an `execute` says on a comm, if it is that."""
    if said is None:
        return None
    buffers = tuple(map(bytes, envelope.buffers))
    return CommRequest(said.action, said.comm, said.data, said.target, said.metadata, buffers)


def with_buffers(data: dict[str, Any], envelope: Envelope) -> dict[str, Any]:
    """A MIME bundle with its raw buffers in their places. Raises RemoteProtocolError."""
    if not envelope.buffers:
        return data
    return {mime: _resolve(value, envelope) for mime, value in data.items()}


def _resolve(value: Any, envelope: Envelope) -> Any:
    if not (isinstance(value, dict) and value.keys() == {"$buffer"}):
        return value
    number = value["$buffer"]
    if type(number) is not int or not 0 <= number < len(envelope.buffers):
        raise RemoteProtocolError("invalid_message", f"{envelope.type}: there is no such buffer")
    return bytes(envelope.buffers[number])


def _without_buffers(data: dict[str, Any]) -> tuple[dict[str, Any], tuple[Buffer, ...]]:
    buffers: list[Buffer] = []
    for mime, value in data.items():
        if isinstance(value, bytes) and len(value) >= LARGE:
            data = {**data, mime: {"$buffer": len(buffers)}}
            buffers.append(value)
    return data, tuple(buffers)


# --- to messages ---


def _started(event: told.Started) -> Wired:
    return Wired("status", {"state": "busy", "execution_count": event.execution_count})


def _output(event: told.Output) -> Wired:
    return Wired("output", {"stream": event.stream, "text": event.text, "dropped": event.dropped})


def _display(event: told.Display) -> Wired:
    data, buffers = _without_buffers(event.data)
    body = {"data": data, "metadata": event.metadata, "display_id": event.display_id, "update": event.update}
    more = {"transient": event.transient, "execution_count": event.execution_count}
    return Wired("display", body | {name: value for name, value in more.items() if value}, buffers)


def _finished(event: told.Finished) -> Wired:
    more: dict[str, Any] = {
        "execution_count": event.execution_count,
        "duration": event.duration,
        "dropped": event.dropped,
    }
    if event.payload:
        more["payload"] = event.payload
    if event.shown:
        more["shown"] = True
    if event.epoch:
        more["epoch"] = event.epoch
    if event.error is None:
        data, buffers = _without_buffers(event.data)
        body: dict[str, Any] = {"data": data, **more}
        if event.user_expressions:
            body["user_expressions"] = event.user_expressions
        if event.text != data.get("text/plain", ""):
            body["text"] = event.text
        if event.metadata:
            body["metadata"] = event.metadata
        return Wired("result", body, buffers)
    error = event.error
    body = {
        "verdict": event.verdict,
        "name": error.name,
        "message": error.message,
        "traceback": error.traceback,
        "code": error.code,
        "hint": error.hint,
        "details": error.details,
        "retryable": error.retryable,
    }
    return Wired("error", body | more)


def _input_request(event: told.InputRequest) -> Wired:
    body: dict[str, Any] = {"request": event.request, "prompt": event.prompt, "password": event.password}
    if event.promise:
        body["promise"] = event.promise
    more = {"choices": event.choices, "json_schema": event.schema, "timeout": event.timeout}
    return Wired("input_request", body | {name: value for name, value in more.items() if value is not None})


def _comm(event: told.CommMessage) -> Wired:
    body = {"comm": event.comm, "data": event.data, "metadata": event.metadata}
    if event.action == "open":
        body["target"] = event.target
    return Wired(_COMM_TYPES[event.action], body, event.buffers)


_COMM_TYPES: dict[Action, str] = {"open": "comm_open", "message": "comm_msg", "close": "comm_close"}
_TO: dict[type[told.Event], Callable[[Any], Wired]] = {
    told.Started: _started,
    told.Output: _output,
    told.Display: _display,
    told.ClearOutput: lambda event: Wired("clear_output", {"wait": event.wait}),
    told.Progress: lambda event: Wired(
        "progress", {"current": event.current, "total": event.total, "text": event.text}
    ),
    told.CommMessage: _comm,
    told.DebugEvent: lambda event: Wired("debug_event", {"event": event.event}),
    told.InputRequest: _input_request,
    told.Status: lambda event: Wired("status", {"state": event.state, "reason": event.reason}),
    told.Gap: lambda event: Wired("gap", {"missing": event.missing}),
    told.Finished: _finished,
}


# --- from messages ---


def _from_status(message: Status, at: Envelope) -> told.Event:
    if message.state == "busy":
        return told.Started(at.execution, at.sequence, message.execution_count)
    return told.Status(at.execution, at.sequence, message.state, message.reason)


def _from_output(message: words.Output, at: Envelope) -> told.Event:
    return told.Output(at.execution, at.sequence, message.stream, message.text, message.dropped)


def _from_display(message: words.Display, at: Envelope) -> told.Event:
    data = with_buffers(message.data, at)
    more = (message.display_id, message.update, message.transient, message.execution_count)
    return told.Display(at.execution, at.sequence, data, message.metadata, *more)


def _from_result(message: words.Result, at: Envelope) -> told.Event:
    data = with_buffers(message.data, at)
    text = message.text or str(data.get("text/plain", ""))
    return told.Finished(
        at.execution,
        at.sequence,
        "ok",
        text,
        data,
        message.metadata,
        None,
        message.execution_count,
        message.duration,
        message.dropped,
        message.user_expressions,
        message.payload,
        message.shown,
        message.epoch,
    )


def _from_error(message: words.Error, at: Envelope) -> told.Event:
    error = told.ErrorInfo(
        message.name, message.message, message.traceback, message.code, message.hint, message.details
    )
    if "retryable" in message.model_fields_set:  # older nodes, and their logs, do not say it
        error = replace(error, retryable=message.retryable)
    return told.Finished(
        at.execution,
        at.sequence,
        message.verdict or "error",
        error=error,
        execution_count=message.execution_count,
        duration=message.duration,
        dropped=message.dropped,
        payload=message.payload,
        shown=message.shown,
        epoch=message.epoch,
    )


def _from_comm(action: Action, message: comms.CommMsg | comms.CommOpen, at: Envelope) -> told.Event:
    target = message.target if isinstance(message, comms.CommOpen) else ""
    buffers = tuple(map(bytes, at.buffers))
    return told.CommMessage(
        at.execution, at.sequence, action, message.comm, message.data, message.metadata, target, buffers
    )


_FROM: dict[str, Callable[[Any, Envelope], told.Event]] = {
    "status": _from_status,
    "output": _from_output,
    "display": _from_display,
    "result": _from_result,
    "error": _from_error,
    "clear_output": lambda message, at: told.ClearOutput(at.execution, at.sequence, message.wait),
    "progress": lambda message, at: told.Progress(
        at.execution, at.sequence, message.current, message.total, message.text
    ),
    "input_request": lambda message, at: told.InputRequest(
        at.execution,
        at.sequence,
        message.request,
        message.prompt,
        message.password,
        message.promise,
        message.choices,
        message.json_schema,
        message.timeout,
    ),
    **{kind: partial(_from_comm, action) for action, kind in _COMM_TYPES.items()},
    "debug_event": lambda message, at: told.DebugEvent(at.execution, at.sequence, message.event),
    "gap": lambda message, at: told.Gap(at.execution, at.sequence, message.missing),
}
