"""Saving what a session has, and bringing it back: what a client asks its node for, and a node its worker."""

# ruff: noqa: RUF012 (pydantic gives each instance its own copy of a default)
from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from capsule_protocol.limits import CHECKPOINT_NAMES
from capsule_protocol.messages.base import Count, Message, Part
from capsule_protocol.messages.execution import Seconds  # noqa: TC001 (pydantic asks for it)

FileToken = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
"""What a client calls a checkpoint while it is at the node."""
Text = Annotated[str, Field(max_length=1000)]
Name = Annotated[str, Field(min_length=1, max_length=200)]
Names = Annotated[list[Name], Field(max_length=CHECKPOINT_NAMES)]
Packages = Annotated[dict[Text, Text], Field(max_length=CHECKPOINT_NAMES)]
"""Names of packages, and the version of each."""


class SavedName(Part):
    """A name that was saved: the type of its value, and the bytes that it took."""

    name: Name
    type: Text = ""
    size: Count = 0


class LeftOut(Part):
    """A name that could not be saved, why, and where in its value the object is that is to blame, if that is known."""

    name: Text
    type: Text = ""
    reason: Text = ""
    where: Text = ""


class SaveReport(Part):
    """What a checkpoint holds, its `size` in bytes, and what it lacks; and what has to be there to load it.

    `has_code`: also the same interpreter, because there are functions or classes in it.
    """

    names: Annotated[list[SavedName], Field(max_length=CHECKPOINT_NAMES)] = []
    left_out: Annotated[list[LeftOut], Field(max_length=CHECKPOINT_NAMES)] = []
    size: Count = 0
    has_code: bool = False
    packages: Packages = {}


class LoadReport(Part):
    """The names that were restored, those of them that had a value before, and packages with versions then and now."""

    restored: Annotated[list[Text], Field(max_length=CHECKPOINT_NAMES)] = []
    replaced: Annotated[list[Text], Field(max_length=CHECKPOINT_NAMES)] = []
    other_versions: Annotated[dict[Text, list[Text]], Field(max_length=CHECKPOINT_NAMES)] = {}


class Save(Message):
    """Save what the session in the header has, under a name of the client's choice. nil: all names."""

    TYPE: ClassVar[str] = "save"
    file: FileToken
    names: Names | None = None
    timeout: Seconds | None = None


class SaveReply(Message):
    """It can be downloaded now, from the place `checkpoints`."""

    TYPE: ClassVar[str] = "save_reply"
    reply_to: str = ""
    report: SaveReport = SaveReport()


class Load(Message):
    """Restore an uploaded checkpoint into the session in the header. nil: all names."""

    TYPE: ClassVar[str] = "load"
    file: FileToken
    names: Names | None = None
    timeout: Seconds | None = None
    allow_other_interpreter: bool = False


class LoadReply(Message):
    """It is restored. And what the checkpoint tells of itself: when it was made, and what it lacks."""

    TYPE: ClassVar[str] = "load_reply"
    reply_to: str = ""
    report: LoadReport = LoadReport()
    created: float = 0.0
    left_out: Annotated[list[LeftOut], Field(max_length=CHECKPOINT_NAMES)] = []


class Discard(Message):
    """A checkpoint at the node is not needed any more; a `save` or `load` of it that is under way is cancelled."""

    TYPE: ClassVar[str] = "discard"
    file: FileToken


class WriteState(Message):
    """Write what the session has to a new file. Its verdict `result` has the report as its `data`."""

    TYPE: ClassVar[str] = "write_state"
    file: FileToken
    names: Names | None = None
    max_bytes: Count


class ReadState(Message):
    """Read what the session is to have from a part of a file. Its verdict `result` has the report as its `data`."""

    TYPE: ClassVar[str] = "read_state"
    file: FileToken
    offset: Count
    size: Count
    sha256: str
    saved: Annotated[list[Name], Field(max_length=CHECKPOINT_NAMES)]
    names: Names | None = None
    packages: Packages = {}
