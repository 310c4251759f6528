"""The directories that grants name: opened once, so that what lies at their paths later does not matter."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from capsule.providers.files.errors import failed
from capsule_protocol.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from capsule.providers.files.schemas import FilesScope

_TOP = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


@dataclass
class _Opened:
    """A descriptor, and how many calls use it. A stale one is closed with the last of them."""

    descriptor: int
    uses: int = 0
    stale: bool = False


class Roots:
    """One descriptor for each path."""

    def __init__(self) -> None:
        self._opened: dict[Path, _Opened] = {}

    def check(self, scope: FilesScope) -> None:
        """Open what is not open. Raises ArgumentError if a root cannot be had."""
        for name, root in scope.roots.items():
            try:
                self._open(root.path)
            except OSError as error:
                message = f"{str(root.path)!r} cannot be opened: {error.strerror}"
                raise ArgumentError(f"scope.roots.{name}.path", message, allowed="a directory that exists") from error

    @contextmanager
    def use(self, path: Path) -> Iterator[int]:
        """The descriptor of a root, which stays open that long."""
        if path not in self._opened:
            try:
                self._open(path)
            except OSError as error:
                raise failed(str(path), f"cannot be opened: {error.strerror}") from error
        opened = self._opened[path]
        opened.uses += 1
        try:
            yield opened.descriptor
        finally:
            opened.uses -= 1
            if opened.stale and not opened.uses:
                os.close(opened.descriptor)

    def gone(self) -> list[str]:
        """The roots that have been removed."""
        return [str(path) for path, opened in self._opened.items() if not os.fstat(opened.descriptor).st_nlink]

    def close(self) -> None:
        """Let go of all of them. Idempotent."""
        while self._opened:
            self._retire(self._opened.popitem()[1])

    def _open(self, path: Path) -> None:
        """Another grant may say it again, or say it of what has been put in the place of the old one."""
        descriptor = os.open(path, _TOP)
        before = self._opened.get(path)
        if before is not None and os.path.samestat(os.fstat(before.descriptor), os.fstat(descriptor)):
            os.close(descriptor)
            return
        self._opened[path] = _Opened(descriptor)
        if before is not None:
            self._retire(before)

    def _retire(self, opened: _Opened) -> None:
        opened.stale = True
        if not opened.uses:
            os.close(opened.descriptor)
