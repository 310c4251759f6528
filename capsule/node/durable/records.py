"""Requests, sessions and events as bytes in a store, and back."""

from __future__ import annotations

from dataclasses import asdict, fields
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from msgpack import packb, unpackb

from capsule.comms import CommRequest
from capsule.config import SessionOptions
from capsule.node.execution import ExecuteRequest
from capsule_bridge import fingerprint

if TYPE_CHECKING:
    from capsule.events import Finished
    from capsule_bridge import Action, Promise

_OPTIONS = tuple(field.name for field in fields(ExecuteRequest) if field.name != "client")
_values_of = attrgetter(*_OPTIONS)
_ACTIONS: dict[str, Action] = {"ok": "resolve", "interrupted": "cancel"}


def action_of(finished: Finished) -> Action:
    """How a promise is settled by a verdict."""
    return _ACTIONS.get(finished.verdict, "reject")


def pack_verdict(finished: Finished) -> bytes:
    """The value of a settled promise: which verdict it is, and where in the log."""
    packed: bytes = packb({"verdict": finished.verdict, "sequence": finished.sequence})
    return packed


def execution_of(promise: Promise) -> str:
    """The execution that a promise is for."""
    return promise.id.removeprefix("exec:")


def epoch_of(promise: Promise) -> int:
    """The epoch in which an execution was begun, 0 if it was not."""
    return 0 if promise.started_at is None else promise.epoch


def pack_request(request: ExecuteRequest) -> bytes:
    """What was asked for."""
    packed: bytes = packb(_options(request))
    return packed


def unpack_request(data: bytes) -> ExecuteRequest:
    """What was asked for."""
    fields = unpackb(data)
    said = fields.get("comm")
    if said is not None:
        fields["comm"] = CommRequest(**{**said, "buffers": tuple(said["buffers"])})
    return ExecuteRequest(**fields)


def fingerprint_of(request: ExecuteRequest) -> bytes:
    """What tells a repeated request from another one with the same key."""
    options = _options(request)
    del options["submitter"]  # who asks again asks for the same
    return fingerprint("execute", options.pop("code"), options)


def pack_session(options: SessionOptions, name: str | None, secret: bytes) -> bytes:
    """How a session was opened, and the secret of its boxes; its files are in its directory, and gone with it."""
    packed: bytes = packb(options.model_dump(exclude={"files"}) | {"name": name, "secret": secret})
    return packed


def unpack_session(data: bytes) -> tuple[SessionOptions, bytes]:
    """How a session was opened, and the secret of its boxes."""
    fields = unpackb(data)
    secret = fields.pop("secret", b"")
    return SessionOptions(**fields), secret


def _options(request: ExecuteRequest) -> dict[str, Any]:
    options = dict(zip(_OPTIONS, _values_of(request), strict=True))
    if request.comm is not None:
        options["comm"] = asdict(request.comm)
    return options
