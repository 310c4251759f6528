"""The directories that grants name, opened when these are checked: what lies at their paths later does not matter."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from capsule.providers.files.errors import failed
from capsule.providers.held import Held, Opened, Shared
from capsule_protocol.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from capsule.providers.files.schemas import FilesScope

_TOP = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


class Roots:
    """One descriptor for each directory that was at a path when a scope was checked."""

    def __init__(self) -> None:
        self._shared = Shared()
        self._scopes: Held[dict[Path, Opened]] = Held(self._let_go)

    def check(self, scope: FilesScope) -> None:
        """Open the roots of a scope, for its calls. Raises ArgumentError if one cannot be had."""
        found: dict[Path, Opened] = {}
        try:
            for name, root in scope.roots.items():
                if root.path not in found:
                    found[root.path] = self._open(root.path, f"scope.roots.{name}.path")
        except BaseException:
            self._let_go(found)
            raise
        self._scopes.put(scope, found)

    @contextmanager
    def use(self, scope: FilesScope, path: Path) -> Iterator[int]:
        """The descriptor of a root, which stays open that long. One that nobody has checked is checked now."""
        if self._scopes.get(scope) is None:
            try:
                self.check(scope)
            except ArgumentError as error:
                raise failed(str(path), error.message) from error
        found = self._scopes.get(scope)
        assert found is not None
        opened = found[path]
        opened.uses += 1
        try:
            yield opened.descriptor
        finally:
            self._shared.give(opened)

    def gone(self) -> list[str]:
        """The roots that have been removed."""
        opened = {id(one): one for found in self._scopes.all() for one in found.values()}.values()
        return [one.path for one in opened if not os.fstat(one.descriptor).st_nlink]

    def close(self) -> None:
        """Let go of all of them. Idempotent."""
        self._scopes.close()

    def _open(self, path: Path, argument: str) -> Opened:
        try:
            descriptor = os.open(path, _TOP)
        except OSError as error:
            message = f"{str(path)!r} cannot be opened: {error.strerror}"
            raise ArgumentError(argument, message, allowed="a directory that exists") from error
        status = os.fstat(descriptor)
        return self._shared.take(str(path), descriptor, (status.st_dev, status.st_ino))

    def _let_go(self, found: Mapping[Path, Opened]) -> None:
        for opened in found.values():
            self._shared.give(opened)
