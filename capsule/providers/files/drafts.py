"""A file before it has its name: gathered where nobody finds it, put in its place when it is whole."""

from __future__ import annotations

import errno
import os
import secrets
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from capsule.beneath import HELD
from capsule.broker.sdk import CHUNK_BYTES
from capsule.providers.files.names import NAMELESS, put
from capsule.providers.files.places import kind_of, known

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from capsule.providers.files.places import Place

_CAN_BE_UNNAMED = hasattr(os, "O_TMPFILE")
_NOT_HERE: Final = frozenset({errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.EPERM})
"""What a file system says that cannot have a file without a name, and (EPERM) a directory that has been removed."""


class Draft:
    """Its methods block, so they belong on a thread, one at a time. They raise OSError and Astray.

    Where the file system can, it has no name until it is put in its place: if the node dies, nothing is left of it.
    """

    def __init__(self, at: Place) -> None:
        self._at = at
        self._folder = self._file = -1
        self._name = ""
        self.size = 0

    def begin(self, *, replace: bool) -> None:
        """Look at what is there, and open a file beside it."""
        with self._at.parent() as (folder, last):
            self._look(folder, last, replace=replace)
            self._folder = os.open(".", HELD, dir_fd=folder)
        self._file = self._open()

    def write(self, data: bytes) -> None:
        """Add bytes."""
        write_all(self._file, data)
        self.size += len(data)

    def blocks(self) -> Iterator[bytes]:
        """The bytes again, from the first on."""
        offset = 0
        while data := os.pread(self._file, CHUNK_BYTES, offset):
            offset += len(data)
            yield data

    def settle(self, *, replace: bool, sync: bool) -> Generator[None, None, None]:
        """Put it in its place: whoever opens the path finds what was there, or all of this."""
        last = self._at.parts[-1]
        before = self._look(self._folder, last, replace=replace)
        if before is not None:
            with suppress(PermissionError):
                os.fchown(self._file, before.st_uid, before.st_gid)
            os.fchmod(self._file, before.st_mode & 0o777)
        if sync:
            os.fsync(self._file)
        yield  # the last chance to be cancelled
        try:
            self._place(last, replace=before is not None)
        except FileExistsError:  # somebody has made one meanwhile
            if not replace:
                raise
            self._place(last, replace=True)
        if sync:
            _sync_folder(self._folder)

    def discard(self) -> None:
        """Leave nothing of what is not in its place. Idempotent."""
        if self._name:
            with suppress(FileNotFoundError):
                os.unlink(self._name, dir_fd=self._folder)
            self._name = ""
        for descriptor in (self._file, self._folder):
            if descriptor >= 0:
                os.close(descriptor)
        self._file = self._folder = -1

    def _look(self, folder: int, last: str, *, replace: bool) -> os.stat_result | None:
        before = known(folder, last)
        if before is None:
            return None
        if kind_of(before) == "directory":
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        self._at.check_links(before)
        if not replace:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        return before

    def _open(self) -> int:
        flags = os.O_RDWR | os.O_CLOEXEC
        if _CAN_BE_UNNAMED:
            try:
                return os.open(".", flags | os.O_TMPFILE, 0o666, dir_fd=self._folder)
            except OSError as error:
                if error.errno not in _NOT_HERE:
                    raise
        name = NAMELESS + secrets.token_hex(8)
        descriptor = os.open(name, flags | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666, dir_fd=self._folder)
        self._name = name
        return descriptor

    def _place(self, last: str, *, replace: bool) -> None:
        if not self._name:
            name = NAMELESS + secrets.token_hex(8) if replace else last
            os.link(f"/proc/self/fd/{self._file}", name, dst_dir_fd=self._folder, follow_symlinks=True)
            if not replace:
                return
            self._name = name
        put((self._folder, self._name), (self._folder, last), replace=replace)
        self._name = ""


def write_all(file: int, data: bytes) -> None:
    """Write until all is written."""
    left = memoryview(data)
    while left:
        left = left[os.write(file, left) :]


def _sync_folder(held: int) -> None:
    folder = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=held)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
