"""The directory of a box as its node reaches it: by its path, or by a descriptor where another namespace has it."""

from __future__ import annotations

import errno
import os
import threading

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Scratch:
    """Used by threads too, also after it was closed: then there is nothing any more. Takes the descriptor over."""

    def __init__(self, path: str, descriptor: int = -1) -> None:
        self._path = path
        self._descriptor = descriptor
        self._by_path = descriptor < 0
        self._lock = threading.Lock()

    @property
    def descriptors(self) -> list[int]:
        """What another node needs to reach it: none if it has a path."""
        return [] if self._by_path else [self._descriptor]

    def open(self) -> int:
        """A descriptor of the caller's own. Raises OSError."""
        if self._by_path:
            return os.open(self._path, _FOLDER)
        with self._lock:
            if self._descriptor < 0:
                raise OSError(errno.ENOENT, "the box has gone")
            return os.open(".", _FOLDER, dir_fd=self._descriptor)

    def make(self, folder: str) -> None:
        """Make a folder in it. Raises OSError."""
        outer = self.open()
        try:
            os.mkdir(folder, 0o700, dir_fd=outer)
        finally:
            os.close(outer)

    def close(self) -> None:
        """Idempotent."""
        with self._lock:
            if self._descriptor >= 0:
                os.close(self._descriptor)
                self._descriptor = -1
