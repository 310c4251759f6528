"""A file on its way out of a session."""

from __future__ import annotations

import hashlib
import os
from typing import Final

from capsule.node.transfers.beneath import failed, open_file
from capsule_protocol.errors import SessionError

CHUNK: Final = 2**20
"""Bytes that are moved in one go."""
STEP: Final = 64 * CHUNK
"""Bytes that are read in one go of what the receiver has already: hostile code can make a file of any size."""


class Outgoing:
    """One download. Its methods do the work at once, so they belong on a thread, one at a time."""

    def __init__(self, top: int, name: str) -> None:
        """Takes the descriptor of the session's directory over. Raises as `open_file`."""
        try:
            self._file, self._status = open_file(top, name)
        finally:
            os.close(top)
        self.name = name
        self.size = self._status.st_size
        self.modified = self._status.st_mtime
        self.offset = 0
        self._closed = False
        self._hash = hashlib.sha256()

    @property
    def digest(self) -> str:
        """Of the bytes so far."""
        return self._hash.copy().hexdigest()

    def read(self, limit: int) -> bytes:
        """The next bytes, b"" at the end. Raises SessionError `file_changed` if this is not the same file any more."""
        try:
            data = os.pread(self._file, min(limit, self.size - self.offset, CHUNK), self.offset)
            now = os.fstat(self._file)
        except OSError as error:
            raise failed(self.name, error) from error
        same = (now.st_size, now.st_mtime_ns, now.st_ctime_ns) == (
            self._status.st_size,
            self._status.st_mtime_ns,
            self._status.st_ctime_ns,
        )
        if not same or (not data and self.offset < self.size):
            raise SessionError("file_changed", f"{self.name[:200]!r} was changed while it was transferred")
        self._hash.update(data)
        self.offset += len(data)
        return data

    def catch_up(self, offset: int, digest: str) -> bool:
        """Go a step towards what the receiver has; whether that is done.

        If it has another beginning than the file's it gets all.
        """
        goal = min(offset, self.size)
        until = min(goal, self.offset + STEP)
        while self.offset < until:
            self.read(until - self.offset)
        if self.offset < goal:
            return False
        if self.offset != offset or (offset and self.digest != digest):
            self.offset = 0
            self._hash = hashlib.sha256()
        return True

    def close(self) -> None:
        """Let go of it. Idempotent."""
        if not self._closed:
            self._closed = True
            os.close(self._file)
