"""A file on its way into a session: gathered out of sight, put in its place when it is whole."""

from __future__ import annotations

import hashlib
import os
import secrets
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from capsule.node.info import FileInfo
from capsule.node.transfers.beneath import explained, failed, folder_of, give, open_file
from capsule_protocol.errors import SessionError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from capsule_protocol.envelope import Buffer

_GATHER = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Incoming:
    """The bytes so far of one upload. Its methods do the work at once, so they belong on a thread, one at a time."""

    def __init__(self, top: int, gathering: int, name: str) -> None:
        """Takes both descriptors over: of the session's directory, and of the one where parts are gathered."""
        self.name = name
        self.offset = 0
        self._hash = hashlib.sha256()
        self._part = secrets.token_hex(8)
        self._descriptors = [top, gathering]
        try:
            with _placing(name), folder_of(top, name, create=True):  # a name that leads astray is refused at once
                self._descriptors.append(os.open(self._part, _GATHER, 0o666, dir_fd=gathering))
                give(self._descriptors[-1], top)
        except BaseException:
            self._close()
            raise

    @property
    def digest(self) -> str:
        """Of the bytes so far."""
        return self._hash.copy().hexdigest()

    def rewind(self) -> None:
        """Begin at the beginning: the sender has other bytes by now."""
        _, _, file = self._descriptors
        os.ftruncate(file, 0)
        self.offset = 0
        self._hash = hashlib.sha256()

    def write(self, chunks: Sequence[Buffer]) -> None:
        """Add bytes. Raises SessionError `transfer_failed`."""
        _, _, file = self._descriptors
        for chunk in chunks:
            left = memoryview(chunk).cast("B")
            self._hash.update(left)
            while left:
                try:
                    written = os.pwrite(file, left, self.offset)
                except OSError as error:
                    raise failed(self.name, error) from error
                self.offset += written
                left = left[written:]

    def commit(self, digest: str) -> FileInfo:
        """Put it in its place. Raises SessionError `checksum_mismatch`, `file_changed`, `file_refused`."""
        if digest != self.digest:
            message = f"{self.name[:200]!r}: what arrived ({self.offset} bytes) is not what was sent"
            raise SessionError("checksum_mismatch", message)
        top, gathering, file = self._descriptors
        with _placing(self.name), folder_of(top, self.name, create=True) as (folder, last):
            self._check_own(gathering, file)
            os.rename(self._part, last, src_dir_fd=gathering, dst_dir_fd=folder)
            placed, status = open_file(top, self.name)
            os.close(placed)
        if not os.path.samestat(status, os.fstat(file)):
            raise _changed(self.name)
        self._close()
        return FileInfo(self.name, status.st_size, status.st_mtime)

    def discard(self) -> None:
        """Leave nothing. Idempotent."""
        if self._descriptors:
            with suppress(OSError):  # the code took it away, or the session's directory is gone
                os.unlink(self._part, dir_fd=self._descriptors[1])
            self._close()

    def _check_own(self, gathering: int, file: int) -> None:
        status = os.fstat(file)
        named = os.stat(self._part, dir_fd=gathering, follow_symlinks=False)
        if status.st_size != self.offset or not os.path.samestat(status, named):
            raise _changed(self.name)

    def _close(self) -> None:
        while self._descriptors:
            os.close(self._descriptors.pop())


@contextmanager
def _placing(name: str) -> Iterator[None]:
    """All folders are made on the way: what is not there was taken away."""
    try:
        with explained(name):
            yield
    except SessionError as error:
        if error.code != "file_unknown":
            raise
        raise _changed(name) from error


def _changed(name: str) -> SessionError:
    return SessionError("file_changed", f"{name[:200]!r} was changed or taken away while it was transferred")
