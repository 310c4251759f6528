"""Capabilities: a session asks, the broker on the node's side decides and acts."""

# ruff: noqa: RUF012 (pydantic gives each instance its own copy of a default)
from __future__ import annotations

from typing import Any, ClassVar

from capsule_protocol.messages.base import Data, Failure, Message


class CapabilityRequest(Message):
    """Call a capability, for instance `files.read`; `request` identifies the call within its execution."""

    TYPE: ClassVar[str] = "capability_request"
    request: str
    capability: str
    arguments: Data = {}


class CapabilityReply(Message):
    """The outcome of a call: a value, or an error."""

    TYPE: ClassVar[str] = "capability_reply"
    request: str
    value: Any = None
    error: Failure | None = None
