"""Comms: Jupyter's two-way channels between front-end widgets and objects in the session; binary parts are buffers."""

# ruff: noqa: RUF012 (pydantic gives each instance its own copy of a default)
from __future__ import annotations

from typing import ClassVar

from capsule_protocol.messages.base import Data, Message


class CommOpen(Message):
    """Open a comm to a target that the other end has registered."""

    TYPE: ClassVar[str] = "comm_open"
    comm: str
    target: str
    data: Data = {}
    metadata: Data = {}


class CommMsg(Message):
    """Something said on a comm."""

    TYPE: ClassVar[str] = "comm_msg"
    comm: str
    data: Data = {}
    metadata: Data = {}


class CommClose(Message):
    """The end of a comm."""

    TYPE: ClassVar[str] = "comm_close"
    comm: str
    data: Data = {}
    metadata: Data = {}
