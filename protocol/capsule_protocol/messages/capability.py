"""Capabilities: a session asks, the broker on the node's side decides and acts.

A call is named by its `request`, a number that the worker counts up. Bytes that travel with it, its body, are buffers
of `capability_request`; if there are more, they follow as a stream, which is open from the request on and which the
worker writes. The answer's body goes the other way, under the same name, and ends in `capability_reply`.
"""

# ruff: noqa: RUF012 (pydantic gives each instance its own copy of a default)
from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from capsule_protocol.limits import CAPABILITY_NAME, POSITIONAL
from capsule_protocol.messages.base import Count, Data, Failure, Message

Request = Annotated[int, Field(ge=1, le=2**53)]
"""The number of a call: each worker counts its own, from 1."""


class CapabilityRequest(Message):
    """Call a capability, for instance `files.read`. `positional` are arguments without a name, in their order.

    `more`: the body goes on behind the buffers, as a stream. `window`: so many bytes of the answer's body may be sent
    before there is credit for more.
    """

    TYPE: ClassVar[str] = "capability_request"
    request: Request
    capability: Annotated[str, Field(min_length=1, max_length=CAPABILITY_NAME)]
    positional: Annotated[list[Any], Field(max_length=POSITIONAL)] = []
    arguments: Data = {}
    more: bool = False
    window: Count = 0


class CapabilityReply(Message):
    """The outcome of a call: a map of what the provider answers, or an error. The buffers are the end of its body.

    The class of an error follows from the `outcome`, whatever its code is. `body`: the answer has one, which may be
    empty: bytes, or the outputs of a program in frames.
    """

    TYPE: ClassVar[str] = "capability_reply"
    request: Request
    value: Data = {}
    body: Literal["", "bytes", "outputs"] = ""
    outcome: Literal["accepted", "denied", "timeout", "failed"] = "accepted"
    error: Failure | None = None


class CapabilityCancel(Message):
    """Whoever called does not wait any more. The reply comes all the same."""

    TYPE: ClassVar[str] = "capability_cancel"
    request: Request
