"""What can be asked of `files`, what it answers, and what a grant says of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal, TypeAlias

from pydantic import Field, field_validator

from capsule.broker.sdk import Schema, ScopeSchema

MAX_PATTERN: Final = 1024
"""Characters. The time to prepare a pattern grows with the square of them."""
Kind: TypeAlias = Literal["file", "directory", "link", "other"]


class Root(ScopeSchema):
    """One directory.

    `hard_links`: files with several names may be read. `mounts`: file systems that are mounted below belong to it.
    """

    path: Path
    mode: Literal["ro", "rw"] = "ro"
    hard_links: bool = False
    mounts: bool = False

    @field_validator("path")
    @classmethod
    def _absolute(cls, path: Path) -> Path:
        if not path.is_absolute() or "\0" in str(path):
            raise ValueError("is not an absolute path")
        return path


class FilesScope(ScopeSchema):
    """The roots by the names that code knows them by, and bounds of one call."""

    roots: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$")], Root] = Field(min_length=1)
    max_entries: int = Field(2000, ge=1, le=1_000_000)
    """Of a listing, and of what a pattern finds: the node's loop packs them in one go, these in a millisecond."""
    max_watched: int = Field(256, ge=1, le=65_536)
    """Directories under one watch."""
    max_waiting: int = Field(1024, ge=1, le=65_536)
    """Events that wait for code which does not take them; more are counted as lost."""


class PathRequest(Schema):
    """`root`, or `root/folder/name`."""

    path: str


class ReadRequest(PathRequest):
    """Part of a file; without `length`, all from `offset` on."""

    offset: int = Field(0, ge=0, lt=2**63)
    length: int | None = Field(None, ge=0, lt=2**63)


class ReadResponse(Schema):
    """The file as it was when it was opened."""

    size: int
    modified: float


class WriteRequest(PathRequest):
    """`exist_ok`: replace what is there. `sync`: answer when it is on the disk."""

    exist_ok: bool = True
    sync: bool = False


class AppendRequest(PathRequest):
    """`sync`: answer when it is on the disk."""

    sync: bool = False


class WriteResponse(Schema):
    """The size of the file, as it is now."""

    size: int


class Entry(Schema):
    """Something in a directory. Links and special files are only told of."""

    name: str
    kind: Kind
    size: int
    modified: float


class ListResponse(Schema):
    """All that is in a directory, by name. `left_out`: how many have names that are no text in UTF-8."""

    entries: tuple[Entry, ...]
    left_out: int


class StatResponse(Schema):
    """What is at a path. `links`: how many names a file has."""

    kind: Kind
    size: int
    modified: float
    links: int


class MkdirRequest(PathRequest):
    """`parents`: make those on the way too. `exist_ok`: it may be there already."""

    parents: bool = False
    exist_ok: bool = False


class MoveRequest(Schema):
    """From one path to another, in one step. `overwrite`: replace what is there."""

    source: str
    target: str
    overwrite: bool = False


class RemoveRequest(PathRequest):
    """`recursive`: a directory with all that is in it. `missing_ok`: there may be nothing."""

    recursive: bool = False
    missing_ok: bool = False


class GlobRequest(PathRequest):
    """A pattern below a directory, as of pathlib: `*`, `?`, `[…]` in names, `**` for any number of directories."""

    pattern: str = Field(min_length=1, max_length=MAX_PATTERN)

    @field_validator("pattern")
    @classmethod
    def _relative(cls, pattern: str) -> str:
        parts = pattern.split("/")
        if "\0" in pattern or {"", ".", ".."} & set(parts) or any("**" in part and part != "**" for part in parts):
            raise ValueError("is no pattern such as '*.csv' or '**/name'")
        return pattern


class GlobResponse(Schema):
    """Paths of files and directories, sorted. `left_out`: how many could not be named: not UTF-8, or too deep."""

    paths: tuple[str, ...]
    left_out: int


class WatchRequest(PathRequest):
    """`recursive`: what is in directories below, too. It ends after `seconds`, or `count` events."""

    recursive: bool = False
    seconds: float | None = Field(None, ge=0, allow_inf_nan=False)
    count: int | None = Field(None, ge=1)


class WatchResponse(Schema):
    """How many events were told of, and how many were lost."""

    events: int
    lost: int
