"""What a client uploads: read in pieces, and from the beginning again if the connection breaks."""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path
from typing import BinaryIO, TypeAlias

from capsule.node.transfers.beneath import parts_of
from capsule.node.transfers.outgoing import CHUNK
from capsule_protocol.errors import ArgumentError

Source: TypeAlias = "str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO"
"""The path of a file, or its content, or a file that is open for reading in binary mode."""

_ALLOWED = "the path of a regular file, bytes, or a binary file object"


class Reader:
    """A source being read. Its methods wait for a disk, so they belong on a thread."""

    def __init__(self, source: Source) -> None:
        """Raises ArgumentError for what is no source."""
        self._own = isinstance(source, (str, os.PathLike, bytes, bytearray, memoryview))
        self._file: BinaryIO = _open(source)
        self._start = self._file.tell() if self._file.seekable() else 0
        self.again = self._file.seekable()
        """Whether it can be read from the beginning again."""
        self.size = self._size() if self.again else None
        self.offset = 0
        self._hash = hashlib.sha256()

    @property
    def digest(self) -> str:
        """Of what has been read."""
        return self._hash.copy().hexdigest()

    def seek(self, offset: int, digest: str) -> int:
        """Go to `offset` if what is before it has this digest, else to the beginning. Gives where that is."""
        self._rewind()
        while self.offset < offset and self.again and self.read(offset - self.offset):
            continue
        if self.offset != offset or (offset and self.digest != digest):
            self._rewind()
        return self.offset

    def read(self, limit: int = CHUNK) -> bytes:
        """The next bytes, b"" at the end. Raises ArgumentError if they are no bytes."""
        data = self._file.read(min(limit, CHUNK))
        if not isinstance(data, bytes):
            raise ArgumentError("source", f"gives {type(data).__name__} when it is read", allowed=_ALLOWED)
        self._hash.update(data)
        self.offset += len(data)
        return data

    def close(self) -> None:
        """Close what was opened here; a caller's file object stays open."""
        if self._own:
            self._file.close()

    def _size(self) -> int:
        size = self._file.seek(0, os.SEEK_END) - self._start
        self._file.seek(self._start)
        return size

    def _rewind(self) -> None:
        if self.again:
            self._file.seek(self._start)
        self.offset = 0
        self._hash = hashlib.sha256()


def name_for(source: Source, name: str | None) -> str:
    """The name that it gets in the session. Raises ArgumentError, SessionError `file_refused`."""
    if name is None:
        known = getattr(source, "name", None) if not isinstance(source, (str, os.PathLike)) else source
        if not isinstance(known, (str, os.PathLike)) or not Path(known).name:
            raise ArgumentError("name", "is missing, and the source has none", allowed="'name' or 'folder/name'")
        name = Path(known).name
    return check_file_name(name)


def check_file_name(name: str) -> str:
    """A name below the session's directory. Raises ArgumentError, SessionError `file_refused`."""
    if not isinstance(name, str):
        raise ArgumentError("name", f"must be a str, not {type(name).__name__}", allowed="'name' or 'folder/name'")
    parts_of(name)
    return name


def _open(source: Source) -> BinaryIO:
    if isinstance(source, (bytes, bytearray, memoryview)):
        return io.BytesIO(source)
    if isinstance(source, (str, os.PathLike)):
        try:
            if not Path(source).is_file():  # a pipe, say, would be waited for
                raise ArgumentError("source", f"{os.fspath(source)!r} is no file", allowed=_ALLOWED)
            return Path(source).open("rb")
        except (OSError, ValueError) as error:
            if isinstance(error, ArgumentError):
                raise
            raise ArgumentError("source", f"cannot be read: {error}", allowed=_ALLOWED) from error
    if not callable(getattr(source, "read", None)) or not callable(getattr(source, "seekable", None)):
        raise ArgumentError("source", f"is a {type(source).__name__}", allowed=_ALLOWED)
    return source
