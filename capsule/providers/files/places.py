"""Paths as code writes them, `root/folder/name`, and what is there."""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from capsule import beneath
from capsule.beneath import Astray
from capsule.providers.files.errors import explained, refused

if TYPE_CHECKING:
    from collections.abc import Iterator

    from capsule.providers.files.roots import Roots
    from capsule.providers.files.schemas import FilesScope, Kind, Root


@dataclass(frozen=True, slots=True)
class Place:
    """A path in a root that is open. What its methods open is the caller's to close. They raise as `explained` says."""

    path: str
    root: Root
    top: int
    parts: tuple[str, ...]

    def hold(self) -> int:
        """Whatever is there, only to be looked at."""
        return beneath.hold(self.top, self.parts, mounts=self.root.mounts)

    def open_file(self, flags: int) -> tuple[int, os.stat_result]:
        """The regular file that is there."""
        descriptor, status = beneath.open_file(self.top, self.parts, flags, mounts=self.root.mounts)
        try:
            self.check_links(status, reading=flags & os.O_ACCMODE == os.O_RDONLY)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor, status

    def open_folder(self) -> int:
        """The directory that is there."""
        return beneath.open_folder(self.top, self.parts, mounts=self.root.mounts)

    @contextmanager
    def parent(self) -> Iterator[tuple[int, str]]:
        """The directory in which it is or would be, and its name there."""
        *folders, last = self.parts
        descriptor = beneath.open_folder(self.top, folders, mounts=self.root.mounts)
        try:
            yield descriptor, last
        finally:
            os.close(descriptor)

    def check_links(self, status: os.stat_result, *, reading: bool = False) -> None:
        """Raise Astray for a file with other names, one of which may be outside of the root: nobody can tell."""
        if status.st_nlink > 1 and not (reading and self.root.hard_links):
            raise Astray("has several names (hard links), and may be something else under another one")


@contextmanager
def place(roots: Roots, scope: FilesScope, path: str) -> Iterator[Place]:
    """What a path means in a scope; what the system says inside is told as an error of calls."""
    root, parts = split(scope, path)
    with roots.use(scope, root.path) as top, explained(path):
        yield Place(path, root, top, parts)


def split(scope: FilesScope, path: str) -> tuple[Root, tuple[str, ...]]:
    """The root of a path and the steps from it. Raises CapabilityDenied `path_refused`."""
    try:
        name, *parts = beneath.parts_of(path)
    except Astray as error:
        raise refused(path, f"{error}, with the name of a root first") from error
    root = scope.roots.get(name)
    if root is None:
        raise refused(path, f"is in none of the roots that are granted: {', '.join(sorted(scope.roots))[:200]}")
    return root, tuple(parts)


def kind_of(status: os.stat_result) -> Kind:
    """What it is, as code is told."""
    if stat.S_ISREG(status.st_mode):
        return "file"
    if stat.S_ISDIR(status.st_mode):
        return "directory"
    return "link" if stat.S_ISLNK(status.st_mode) else "other"


def known(folder: int, name: str) -> os.stat_result | None:
    """What a name in a directory is, if it is there; Astray if it is neither a file nor a directory."""
    try:
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None
    if kind_of(status) in {"link", "other"}:
        raise Astray("is a link or a special file")
    return status
