"""Streams: large or endless data under credit, so that a slow reader slows the writer. Who opens a stream writes it."""

# ruff: noqa: RUF012 (pydantic gives each instance its own copy of a default)
from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from capsule_protocol.messages.base import Data, Failure, Message


class StreamOpen(Message):
    """A new stream; its opener writes when the reader has given credit."""

    TYPE: ClassVar[str] = "stream_open"
    stream: str
    metadata: Data = {}


class StreamData(Message):
    """The bytes are the message's buffers; all of them together count against the credit."""

    TYPE: ClassVar[str] = "stream_data"
    stream: str


class StreamCredit(Message):
    """The reader takes this many bytes more."""

    TYPE: ClassVar[str] = "stream_credit"
    stream: str
    size: Annotated[int, Field(ge=1)]


class StreamClose(Message):
    """The sender is done with the stream; each end sends one. With an error, the data is not whole."""

    TYPE: ClassVar[str] = "stream_close"
    stream: str
    error: Failure | None = None
