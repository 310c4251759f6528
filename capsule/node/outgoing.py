"""The messages that a session sends to its worker."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from capsule.wire import buffers_of, execute_body
from capsule_protocol.envelope import Envelope
from capsule_protocol.ids import MESSAGE, new_id

if TYPE_CHECKING:
    from capsule.config import SessionOptions
    from capsule.node.asking import Answer
    from capsule.node.execution import Execution


def execute(session_id: str, execution: Execution) -> Envelope:
    """Run this; the serial is the sequence."""
    turn = execution.request.turn
    if turn is not None:
        return Envelope(turn.kind, turn.body, "", session_id, execution.id, execution.serial, time.time())
    body, buffers = execute_body(execution.request), buffers_of(execution.request)
    return Envelope("execute", body, "", session_id, execution.id, execution.serial, time.time(), buffers)


def cancel(session_id: str, execution: Execution) -> Envelope:
    """Do not begin this."""
    body = {"execution": execution.id}
    return Envelope("cancel", body, "", session_id, execution.id, execution.serial, time.time())


def interrupt(session_id: str, execution: Execution) -> Envelope:
    """Interrupt this, which runs in a subshell."""
    return Envelope("interrupt", {}, "", session_id, execution.id, execution.serial, time.time())


def input_reply(session_id: str, request: str, answer: Answer) -> Envelope:
    """The answer to a request for input."""
    return Envelope("input_reply", {"request": request, **answer._asdict()}, session=session_id)


def opening(session_id: str, options: SessionOptions, name: str, epoch: int, *, granted: bool = False) -> Envelope:
    """The session is the worker's from here on; `granted`: its code may call capabilities."""
    body = {
        "environment": options.environment,
        "name": name,
        "env": dict(options.env),
        "cwd": options.cwd,
        "argv": list(options.argv),
        "path": list(options.path),
        "files": list(options.files),
        "options": {
            "out_cache": options.out_cache,
            "source_cache": options.source_cache,
            "max_open_files": options.max_open_files,
            **({"capabilities": True} if granted else {}),
            **({"ipython": list(options.ipython)} if options.ipython else {}),
        },
        "epoch": epoch,
    }
    return Envelope("open", body, new_id(MESSAGE), session_id, buffers=tuple(options.files.values()))
