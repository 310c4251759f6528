"""Where a client puts what it downloads: into memory, or into a file that is there when it is whole."""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
from typing import TYPE_CHECKING, Final

from capsule.node.transfers.outgoing import CHUNK
from capsule_protocol.errors import ArgumentError, SessionError

if TYPE_CHECKING:
    from pathlib import Path

    from capsule_protocol.envelope import Buffer

MAX_IN_MEMORY: Final = 2**31
"""Bytes of a download that is not written to a file: code that nobody trusts can make a file of any size."""
_PART = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_ALLOWED = "the path of a file in an existing folder"


class Target:
    """In memory. Its methods may wait for a disk, so they belong on a thread."""

    def __init__(self) -> None:
        self.offset = 0
        self._hash = hashlib.sha256()
        self._memory = io.BytesIO()

    @property
    def digest(self) -> str:
        """Of what is there."""
        return self._hash.copy().hexdigest()

    def check(self, size: int) -> None:
        """Raise ArgumentError if there is no room for so much."""
        if size > MAX_IN_MEMORY:
            message = f"the file has {size} bytes, and in memory there may be {MAX_IN_MEMORY}"
            raise ArgumentError("to", message, allowed=_ALLOWED)

    def restart(self) -> None:
        """Forget all."""
        self.offset = 0
        self._hash = hashlib.sha256()
        self._memory = io.BytesIO()

    def write(self, data: Buffer) -> None:
        """Add bytes."""
        view = memoryview(data).cast("B")
        self._hash.update(view)
        self._put(view)
        self.offset += len(view)

    def finish(self, digest: str) -> bytes | None:
        """All is there: give it, or put it in its place. Raises SessionError `checksum_mismatch`."""
        if digest != self.digest:
            self.discard()
            message = f"what arrived ({self.offset} bytes) is not what was sent"
            raise SessionError("checksum_mismatch", message)
        return self._settle()

    def discard(self) -> None:
        """Leave nothing. Idempotent."""
        self._memory = io.BytesIO()

    def suspend(self) -> None:
        """It was interrupted: leave what another download can go on with. Idempotent."""
        self.discard()

    def _put(self, view: memoryview) -> None:
        self._memory.write(view)

    def _settle(self) -> bytes | None:
        return self._memory.getvalue()


class FileTarget(Target):
    """A file. It is gathered beside its place, under the name `.NAME.part`, which an interrupted download leaves."""

    def __init__(self, path: Path, argument: str = "to") -> None:
        """Raises ArgumentError if there can be no file of this name, or somebody else downloads it now."""
        super().__init__()
        self._path = path.absolute()
        self._part = self._path.with_name(f".{self._path.name}.part")
        if self._path.is_dir():
            raise ArgumentError(argument, f"{str(path)!r} is a folder", allowed=_ALLOWED)
        try:
            self._file = os.open(self._part, _PART, 0o666)
        except (OSError, ValueError) as error:
            raise ArgumentError(argument, f"{str(path)!r} cannot be written: {error}", allowed=_ALLOWED) from error
        self._open = True
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            while data := os.pread(self._file, CHUNK, self.offset):
                self._hash.update(data)
                self.offset += len(data)
        except OSError as error:
            self._close()
            message = f"{str(path)!r} is being downloaded already: {error.strerror}"
            raise ArgumentError(argument, message, allowed=_ALLOWED) from error

    def check(self, size: int) -> None:
        """There is as much room as the disk has."""

    def restart(self) -> None:
        """Forget all."""
        super().restart()
        os.ftruncate(self._file, 0)

    def discard(self) -> None:
        """Leave nothing. Idempotent."""
        if self._open:
            self._part.unlink(missing_ok=True)
            self._close()

    def suspend(self) -> None:
        """Leave what another download can go on with. Idempotent."""
        if self.offset == 0:
            self.discard()
        self._close()

    def _put(self, view: memoryview) -> None:
        offset = self.offset
        while view:
            written = os.pwrite(self._file, view, offset)
            view, offset = view[written:], offset + written

    def _settle(self) -> None:
        os.ftruncate(self._file, self.offset)
        self._part.replace(self._path)
        self._close()

    def _close(self) -> None:
        if self._open:
            self._open = False
            os.close(self._file)


class CheckpointTarget(FileTarget):
    """A file that survives the loss of power, that nobody else may read, and that is not gone on with later."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "path")
        os.fchmod(self._file, 0o600)
        self.restart()

    def suspend(self) -> None:
        """Leave nothing. Idempotent."""
        self.discard()

    def _settle(self) -> None:
        os.fsync(self._file)
        super()._settle()
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
