"""What is said on comms, Jupyter's channels between objects in a session and those of a front end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from capsule_protocol.codec import encode
from capsule_protocol.envelope import Envelope
from capsule_protocol.errors import ArgumentError, LocalProtocolError
from capsule_protocol.limits import Limits
from capsule_protocol.messages.comms import MAX_NAME

Action = Literal["open", "message", "close"]


@dataclass(frozen=True, slots=True)
class CommRequest:
    """What a client says on the comm `comm`, an id of its own making if it opens it to the `target` that code has.

    `data` and `metadata` are what JSON can hold; `buffers` are raw bytes beside them.
    """

    action: Action
    comm: str
    data: dict[str, Any] = field(default_factory=dict)
    target: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)
    buffers: tuple[bytes, ...] = ()

    def body(self) -> dict[str, Any]:
        """What `execute` says of it, but for the buffers."""
        return {
            "action": self.action,
            "comm": self.comm,
            "target": self.target,
            "data": self.data,
            "metadata": self.metadata,
        }


def check_comm(request: object, limit: int) -> None:
    """Refuse what is no CommRequest, or does not fit into a message of so many bytes. Raises ArgumentError."""
    if not isinstance(request, CommRequest):
        raise ArgumentError("comm", f"must be a CommRequest, not {type(request).__name__}", allowed="a CommRequest")
    if request.action not in get_args(Action):
        raise ArgumentError("comm", f"has the action {request.action!r:.80}", allowed=", ".join(get_args(Action)))
    for name in ("comm", "target"):
        value = getattr(request, name)
        if not isinstance(value, str) or len(value) > MAX_NAME or (name == "comm" and not value):
            raise ArgumentError("comm", f"has {name}={value!r:.80}", allowed=f"text of at most {MAX_NAME} characters")
    for name in ("data", "metadata"):
        if not isinstance(getattr(request, name), Mapping):
            raise ArgumentError("comm", f"has {name} that is no dict", allowed="a dict that JSON can hold")
    if not all(isinstance(buffer, bytes) for buffer in request.buffers):
        raise ArgumentError("comm", "has a buffer that is no bytes", allowed="a tuple of bytes")
    try:
        encode(Envelope("execute", {"comm": request.body()}, buffers=request.buffers), Limits(message_bytes=limit))
    except LocalProtocolError as error:
        allowed = f"what JSON can hold, in a message of at most {limit} bytes"
        raise ArgumentError("comm", f"cannot be sent: {error.message}", allowed=allowed) from error
