"""Streams: large or endless data under credit, so that a slow reader slows the writer. Who opens a stream writes it.

And what they are asked for: the files of a session.
"""

# ruff: noqa: RUF012 (pydantic gives each instance its own copy of a default)
from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from capsule_protocol.messages.base import Count, Data, Failure, Message, Part

Place = Literal["files", "checkpoints"]
"""Where a file of a session is: among those that code sees, or among what was saved or is to be loaded."""


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
    metadata: Data = {}


class Upload(Message):
    """Ask to bring a file into the directory of the session in the header, by a stream of this name.

    With `place` `checkpoints` it is one that is to be loaded, and code does not see it.
    """

    TYPE: ClassVar[str] = "upload"
    stream: str
    name: str
    place: Place = "files"


class UploadReply(Message):
    """The stream may be opened. The node has `offset` bytes of an earlier attempt, with this digest."""

    TYPE: ClassVar[str] = "upload_reply"
    reply_to: str = ""
    offset: Count = 0
    digest: str = ""


class Download(Message):
    """Ask for a file of the session in the header, by a stream of this name.

    The client has `offset` bytes of an earlier attempt, with this digest.
    """

    TYPE: ClassVar[str] = "download"
    stream: str
    name: str
    offset: Count = 0
    digest: str = ""
    place: Place = "files"


class DownloadReply(Message):
    """The stream is opened next, and goes on at `offset`: the client's, or 0."""

    TYPE: ClassVar[str] = "download_reply"
    reply_to: str = ""
    offset: Count = 0
    size: Count = 0
    modified: float = 0.0


class Files(Message):
    """Ask for the files below the directory of the session in the header."""

    TYPE: ClassVar[str] = "files"


class FileEntry(Part):
    """A file: its name below the directory, bytes, seconds since 1970-01-01 UTC."""

    name: str
    size: Count
    modified: float


class FilesReply(Message):
    """The files, by name."""

    TYPE: ClassVar[str] = "files_reply"
    reply_to: str = ""
    entries: list[FileEntry] = []
