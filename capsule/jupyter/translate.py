"""What a session tells, in Jupyter's words, and what a front end asks for, in ours. Pure."""

from __future__ import annotations

import base64
import re
import sys
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from capsule.comms import CommRequest
from capsule.events import ClearOutput, CommMessage, DebugEvent, Display, Finished, Output, Status
from capsule.node.execution import ExecuteRequest
from capsule_protocol.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from capsule.comms import Action
    from capsule.events import ErrorInfo, Event
    from capsule_protocol.errors import CapsuleError

PROTOCOL = "5.5"
"""The version of Jupyter's messages."""
BATCH = "jupyter"
"""All executions of a kernel belong together: after an error those that wait are aborted."""
CANCELLED = "execution_cancelled"
OUTPUT = "capsule_output"
"""The source of a payload that asks for what a cell has shown."""
ERROR = "application/vnd.jupyter.error"
"""The MIME type of an error that code shows and that is not its verdict."""
ABOUT = frozenset({"kernel_info_request", "connect_request"})
"""What is asked about the kernel itself, whatever its session does."""
COMMS: dict[str, Action] = {"comm_open": "open", "comm_msg": "message", "comm_close": "close"}
"""What may be said on comms, in either direction."""
_UNTOLD = frozenset({CANCELLED, "comm_unknown"})
_NO_INPUT = (
    "StdinNotImplementedError",
    "raw_input was called, but this frontend does not support input requests.",
)
DEADLY = frozenset({"oom", "killed", "crashed", "worker_lost"})
"""Verdicts of a worker that is no more: Jupyter's clients know by the missing reply that a kernel has died."""
OVER = frozenset({"session_closed", "session_dead", "session_killed", "session_taken", "worker_lost"})
"""Codes that mean the same."""
_SURROGATE = re.compile("[\ud800-\udfff]")
"""JSON can say half a character; UTF-8 cannot."""
_COMM_KINDS = {action: kind for kind, action in COMMS.items()}

Content = dict[str, Any]
T = TypeVar("T")


class Shown(NamedTuple):
    """A message for everybody: type, content, metadata and buffers."""

    kind: str
    content: Content
    metadata: Content | None = None
    buffers: Sequence[bytes] = ()


UNRESPONSIVE = (
    "The code does not react to the interrupt: it is in a call that Python cannot leave, or goes on in spite of it. "
    "It is interrupted as soon as it can be; to end it at once, restart the kernel.\n"
)
"""Told in a cell's output."""


def shown(event: Event) -> Shown | None:
    """The message that tells of an event; None if Jupyter has no word for it."""
    match event:
        case Output():
            return Shown("stream", {"name": event.stream, "text": event.text})
        case Display():
            return _display(event)
        case Status(state="unresponsive"):
            return Shown("stream", {"name": "stderr", "text": UNRESPONSIVE})
        case ClearOutput():
            return Shown("clear_output", {"wait": event.wait})
        case DebugEvent():
            return Shown("debug_event", event.event)
        case CommMessage():
            return _comm(event)
        case Finished(shown=True):
            return None
        case Finished(error=None) if event.data:
            content = {"execution_count": event.execution_count, "data": bundle(event.data), "metadata": event.metadata}
            return Shown("execute_result", content)
        case Finished(error=error) if error is not None and error.code not in _UNTOLD:
            return Shown("error", error_content(error))
    return None


def _display(event: Display) -> Shown:
    error = event.data.get(ERROR)
    if error is not None and _is_error(error):
        return Shown("error", {name: error[name] for name in ("ename", "evalue", "traceback")})
    content: Content = {"data": bundle(event.data), "metadata": event.metadata}
    if event.execution_count:
        return Shown("execute_result", {**content, "execution_count": event.execution_count})
    named = {} if event.display_id is None else {"display_id": event.display_id}
    kind = "update_display_data" if event.update else "display_data"
    return Shown(kind, {**content, "transient": named | event.transient})


def _is_error(told: Any) -> bool:
    """Whether code told of an error in Jupyter's form; what is none is shown as any other display."""
    if not isinstance(told, dict) or not isinstance(told.get("traceback"), list):
        return False
    return all(isinstance(text, str) for text in (told.get("ename"), told.get("evalue"), *told["traceback"]))


def not_kept(number: int, there: Sequence[int]) -> Shown:
    """What is told to who asks for the output of a cell that is not there."""
    which = f"of cell {number}" if number else "of any other cell"
    known = f"; there is of {', '.join(map(str, there[-20:]))}" if there else ""
    return Shown("stream", {"name": "stderr", "text": f"Nothing is kept {which}{known}.\n"})


def _comm(event: CommMessage) -> Shown:
    content = {"comm_id": event.comm, "data": event.data}
    if event.action == "open":
        content["target_name"] = event.target
    return Shown(_COMM_KINDS[event.action], content, event.metadata, event.buffers)


def in_words_of(told: Shown, parents: Mapping[str, Content]) -> Shown:
    """As told, but widgets that capture what belongs to a request (`msg_id`) call it as its front end does.

    The worker names a request by its execution; `parents` has their headers.
    """
    state = told.content["data"].get("state") if told.kind in COMMS else None
    if not isinstance(state, dict) or (parent := parents.get(str(state.get("msg_id")))) is None:
        return told
    data = {**told.content["data"], "state": {**state, "msg_id": parent["msg_id"]}}
    return told._replace(content={**told.content, "data": data})


def run_request(message: Content) -> ExecuteRequest:
    """What is to be run, of a message that asks for code or says something on a comm. Raises ArgumentError."""
    if message["header"]["msg_type"] in COMMS:
        return comm_request(message)
    return execute_request(message["content"])


def comm_request(message: Content) -> ExecuteRequest:
    """What a front end says on a comm. Raises ArgumentError for what is no such message."""
    content = message["content"]
    return ExecuteRequest(
        "",
        comm=CommRequest(
            COMMS[message["header"]["msg_type"]],
            field(content, "comm_id", str),
            field(content, "data", dict, default={}),
            field(content, "target_name", str, default=""),
            message["metadata"],
            tuple(map(bytes, message["buffers"])),
        ),
        payloads=True,
    )


def comm_error(message: Content, error: ErrorInfo) -> Shown | None:
    """What is told of an error of who heard something on a comm: text, as by ipykernel. Nobody is there to be told
    of one that the code does not know (any more).
    """
    if error.code in _UNTOLD:
        return None
    kind, content = message["header"]["msg_type"], message["content"]
    opens = kind == "comm_open"
    what = (
        f"opening comm with target: {content.get('target_name', '')}"
        if opens
        else f"in {kind} for {content['comm_id']}"
    )
    lines = [f"Exception {what}", *error.traceback]
    return Shown("stream", {"name": "stderr", "text": "\n".join(lines) + "\n"})


def execute_reply(finished: Finished, asked: Content) -> Content:
    """The answer to what was `asked` in an `execute_request`; code that does not count has the number before."""
    count = finished.execution_count
    counted: Content = {
        "execution_count": count if execute_request(asked).store_history else max(0, count - 1),
        "user_expressions": finished.user_expressions,
        "payload": finished.payload,
    }
    if finished.error is None:
        return {"status": "ok"} | counted
    status = "aborted" if finished.error.code == CANCELLED else "error"
    return {"status": status} | error_content(finished.error) | counted


def error_content(error: ErrorInfo) -> Content:
    """Why code failed. What asks for input where nobody answers fails as in every kernel of Jupyter's."""
    name, message, traceback = error.name, error.message, list(error.traceback)
    if error.code == "no_input_client":
        traceback = [part.replace(name, _NO_INPUT[0]).replace(message, _NO_INPUT[1]) for part in traceback]
        name, message = _NO_INPUT
    return {"ename": name, "evalue": message, "traceback": traceback}


def refusal(error: CapsuleError) -> Content:
    """Why a request was not done at all."""
    lines = [f"{error.code}: {error.message}"] + ([error.hint] if error.hint else [])
    return {"status": "error", "ename": type(error).__name__, "evalue": error.message, "traceback": lines}


def bundle(data: Content) -> Content:
    """A MIME bundle for JSON: bytes as base64 text."""
    return {
        mime: base64.b64encode(value).decode() if isinstance(value, bytes) else value for mime, value in data.items()
    }


def kernel_info(version: str) -> Content:
    """What the kernel is; `version` is ours."""
    python = ".".join(map(str, sys.version_info[:3]))
    return {
        "status": "ok",
        "protocol_version": PROTOCOL,
        "implementation": "capsule",
        "implementation_version": version,
        "language_info": {
            "name": "python",
            "version": python,
            "mimetype": "text/x-python",
            "codemirror_mode": {"name": "ipython", "version": sys.version_info[0]},
            "pygments_lexer": "ipython3",
            "nbconvert_exporter": "python",
            "file_extension": ".py",
        },
        "banner": f"Python {python} in Capsule {version}",
        "help_links": [{"text": "Python Reference", "url": f"https://docs.python.org/{python[:4]}"}],
        "debugger": True,
        "supported_features": ["debugger", "kernel subshells"],
    }


def execute_request(content: Content) -> ExecuteRequest:
    """What is to be run. Raises ArgumentError for what is no such request."""
    code, silent = field(content, "code", str), field(content, "silent", bool, default=False)
    counts = bool(code) and not code.isspace() and not silent  # in Jupyter's words; ours counts blank code, too
    return ExecuteRequest(
        code,
        quiet=silent,
        store_history=field(content, "store_history", bool, default=True) and counts,
        allow_input=field(content, "allow_stdin", bool, default=True),
        stop_on_error=field(content, "stop_on_error", bool, default=True),
        batch=BATCH,
        user_expressions=field(content, "user_expressions", dict, default={}),
        payloads=True,
    )


def question(kind: str, content: Content) -> tuple[str, Content]:
    """A question to the worker: our type and body. Raises ArgumentError for what is none."""
    return _QUESTIONS[kind](content)


def answer(kind: str, reply: Content) -> Content:
    """The content of the reply of a type."""
    return {"status": "ok"} | _ANSWERS[kind](reply)


def field(content: Content, name: str, kind: type[T], *, default: T | None = None) -> T:
    """A field of a message. Raises ArgumentError if it is missing, or something else."""
    value = content.get(name, default)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        given = "is missing" if name not in content else f"is {value!r:.80}"
        raise ArgumentError(name, given, allowed=kind.__name__)
    if isinstance(value, str) and not value.isascii() and _SURROGATE.search(value):
        raise ArgumentError(name, "cannot be encoded", allowed="text without surrogates")
    return value


def _code_at(content: Content) -> Content:
    code = field(content, "code", str)
    cursor = field(content, "cursor_pos", int, default=len(code))
    return {"code": code, "cursor": min(max(cursor, 0), len(code))}


def _inspect(content: Content) -> tuple[str, Content]:
    detail = field(content, "detail_level", int, default=0)
    if detail not in (0, 1):
        raise ArgumentError("detail_level", f"is {detail}", allowed=[0, 1])
    return "inspect", _code_at(content) | {"detail": detail}


def _history(content: Content) -> tuple[str, Content]:
    kind = field(content, "hist_access_type", str, default="tail")
    if kind not in ("tail", "range", "search"):
        raise ArgumentError("hist_access_type", f"is {kind!r:.80}", allowed=["tail", "range", "search"])
    body: Content = {"kind": kind}
    for name, wanted in _OPTIONAL.items():
        if content.get(name) is not None:
            body[name] = field(content, name, wanted)
    if "n" in body and not 0 <= body["n"] < 2**31:
        raise ArgumentError("n", f"is {body['n']:.9g}", allowed=range(2**31))
    for name, default in (("unique", False), ("raw", True), ("output", False)):
        body[name] = field(content, name, bool, default=default)
    return "history", body


def _comm_info(content: Content) -> tuple[str, Content]:
    asked = content.get("target_name") is not None
    return "comm_info", {"target": field(content, "target_name", str) if asked else None}


_OPTIONAL: dict[str, type] = {"n": int, "session": int, "start": int, "stop": int, "pattern": str}


def _complete_reply(reply: Content) -> Content:
    return {
        "matches": reply["matches"],
        "cursor_start": reply["start"],
        "cursor_end": reply["end"],
        "metadata": reply["metadata"],
    }


def _is_complete_reply(reply: Content) -> Content:
    indent = {"indent": reply["indent"]} if reply["status"] == "incomplete" else {}
    return {"status": reply["status"]} | indent


_QUESTIONS: dict[str, Callable[[Content], tuple[str, Content]]] = {
    "complete_request": lambda content: ("complete", _code_at(content)),
    "inspect_request": _inspect,
    "is_complete_request": lambda content: ("is_complete", {"code": field(content, "code", str)}),
    "history_request": _history,
    "comm_info_request": _comm_info,
}
_ANSWERS: dict[str, Callable[[Content], Content]] = {
    "complete_request": _complete_reply,
    "inspect_request": lambda reply: {name: reply[name] for name in ("found", "data", "metadata")},
    "is_complete_request": _is_complete_reply,
    "history_request": lambda reply: {"history": reply["entries"]},
    "comm_info_request": lambda reply: {
        "comms": {comm: {"target_name": target} for comm, target in reply["comms"].items()}
    },
}
QUESTIONS = frozenset(_QUESTIONS)
