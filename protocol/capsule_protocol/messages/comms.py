"""Comms: Jupyter's two-way channels between front-end widgets and objects in the session; binary parts are buffers.

What code says on them are events of the execution that says it. What a client says is an execution of its own.
"""

# ruff: noqa: RUF012 (pydantic gives each instance its own copy of a default)
from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from capsule_protocol.messages.base import Count, Data, Message, Part
from capsule_protocol.messages.introspection import Question, Reply

MAX_NAME = 1000
"""Characters of the id of a comm, and of the name of a target."""


class Said(Part):
    """What a client says on a comm, in `execute`; the buffers of the message belong to it."""

    action: Literal["open", "message", "close"]
    comm: Annotated[str, Field(min_length=1, max_length=MAX_NAME)]
    target: Annotated[str, Field(max_length=MAX_NAME)] = ""
    data: Data = {}
    metadata: Data = {}


class CommOpen(Message):
    """The code opens a comm to a target of the client's."""

    TYPE: ClassVar[str] = "comm_open"
    comm: str
    target: str
    data: Data = {}
    metadata: Data = {}
    fence: Count = 0


class CommMsg(Message):
    """The code says something on a comm."""

    TYPE: ClassVar[str] = "comm_msg"
    comm: str
    data: Data = {}
    metadata: Data = {}
    fence: Count = 0


class CommClose(Message):
    """The code closes a comm."""

    TYPE: ClassVar[str] = "comm_close"
    comm: str
    data: Data = {}
    metadata: Data = {}
    fence: Count = 0


class CommInfo(Question):
    """Which comms are open? With `target`, only those that were opened to it."""

    TYPE: ClassVar[str] = "comm_info"
    target: str | None = None


class CommInfoReply(Reply):
    """The target of each comm, by its id."""

    TYPE: ClassVar[str] = "comm_info_reply"
    comms: dict[str, str] = {}
