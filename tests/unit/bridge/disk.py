"""A disk whose power can be cut: of what was written and not synced it keeps what chance likes.

The files are real ones, which is what the running store sees. Beside them is remembered what a cut cannot take away:
files and directories as they were at their last sync. SQLite comes by through a VFS of apsw, what the store syncs by
itself by `os.fsync`.
"""

from __future__ import annotations

import itertools
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import TypeAlias

import apsw
import pytest

from capsule_bridge.sqlite import connect
from tests.unit.bridge.adapter import Connection

SECTOR = 512
"""What a disk writes wholly or not at all."""
# SQLite syncs the directory, too, when it syncs one of these for the first time.
_NAME_IS_SYNCED = apsw.SQLITE_OPEN_MAIN_JOURNAL | apsw.SQLITE_OPEN_WAL
_numbers = itertools.count()


@dataclass
class Content:
    """A file at its last sync, and what was done to it since: bytes at an offset, or None: cut off there."""

    synced: bytes = b""
    since: list[tuple[int, bytes | None]] = field(default_factory=list)

    def sync(self) -> None:
        self.synced, self.since = self._after(lambda: True), []

    def survivor(self, share: float, chance: Random) -> bytes:
        """The file after a cut, which so large a part of what was done since outlives."""
        return self._after(lambda: chance.random() < share)

    def _after(self, kept: Callable[[], bool]) -> bytes:
        data = bytearray(self.synced)
        for offset, piece in ((offset, piece) for what in self.since for offset, piece in _sectors(*what) if kept()):
            if piece is None:
                del data[offset:]
                continue
            data.extend(bytes(max(0, offset - len(data))))
            data[offset : offset + len(piece)] = piece
        return bytes(data)


def _sectors(offset: int, data: bytes | None) -> Iterator[tuple[int, bytes | None]]:
    if data is None:
        yield offset, None
        return
    begin = 0
    while begin < len(data):
        end = begin + SECTOR - (offset + begin) % SECTOR
        yield offset + begin, data[begin:end]
        begin = end


Lies: TypeAlias = Callable[[Path], bool]
"""Whether a disk says of this file or directory that it was synced when it was not."""


def honest(_path: Path) -> bool:
    """What a disk should be."""
    return False


class Disk:
    """The directory `root`, all of which is on the disk at first; `step` is called before anything is written."""

    def __init__(self, root: Path, step: Callable[[], None], lies: Lies = honest) -> None:
        self.step = step
        self._lies = lies
        self._root = root
        self._contents: dict[int, Content] = {}
        self._names: dict[int, dict[str, int]] = {}
        self._pins: list[int] = []
        for folder, _, files in os.walk(root):
            self.sync_names(Path(folder))
            for name in files:
                self.content(Path(folder, name)).synced = Path(folder, name).read_bytes()

    @contextmanager
    def mounted(self) -> Iterator[None]:
        """Meanwhile the stores of this process write to it."""
        vfs = _Vfs(f"capsule-disk-{next(_numbers)}", self)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(connect, "_open", lambda path, mode: Connection(path, mode, vfs.vfs_name))
            patch.setattr(os, "fsync", self._fsync)
            yield
        vfs.unregister()
        for pin in self._pins:
            os.close(pin)

    def after_a_cut(self, target: Path, share: float, chance: Random) -> None:
        """Write to `target` what the directory would be if the power went now."""
        self._survive(self._root, target, share, chance)

    def content(self, path: Path) -> Content:
        """What is remembered of the file."""
        node = path.stat().st_ino
        if node not in self._contents:
            self._contents[node] = Content()
            # While this is open no other file is given the number. Closed, it takes no lock of SQLite away.
            self._pins.append(os.open(path, os.O_PATH))
        return self._contents[node]

    def sync_names(self, folder: Path) -> None:
        """The directory is on the disk as it is now."""
        self._names[folder.stat().st_ino] = {entry.name: entry.inode() for entry in os.scandir(folder)}

    def _fsync(self, descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if not path.is_relative_to(self._root):
            return
        self.step()
        if self._lies(path):
            return
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            self.sync_names(path)
        else:
            self.content(path).synced = path.read_bytes()

    def _survive(self, source: Path, target: Path, share: float, chance: Random) -> None:
        target.mkdir()
        synced = self._names.get(source.stat().st_ino, {})
        current = {entry.name: entry.inode() for entry in os.scandir(source)}
        for name in sorted(synced.keys() | current.keys()):
            node = (current if chance.random() < share else synced).get(name)
            if node is None:
                continue
            if (source / name).is_dir():
                self._survive(source / name, target / name, share, chance)
                continue
            content = self._contents.get(node)
            if content is None:  # written by the store itself, and never synced
                content = Content(since=[(0, (source / name).read_bytes())] if current.get(name) == node else [])
            (target / name).write_bytes(content.survivor(share, chance))


class _Vfs(apsw.VFS):
    def __init__(self, name: str, disk: Disk) -> None:
        super().__init__(name, "")
        self.vfs_name = name
        self._disk = disk

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> _File:
        assert name is not None, "the store asked for a temporary file"
        return _File(name, flags, self._disk)

    def xDelete(self, filename: str, syncdir: bool) -> None:
        self._disk.step()
        super().xDelete(filename, syncdir)
        if syncdir:
            self._disk.sync_names(Path(filename).parent)


class _File(apsw.VFSFile):
    def __init__(self, name: str | apsw.URIFilename, flags: list[int], disk: Disk) -> None:
        super().__init__("", name, flags)
        self._path = Path(name if isinstance(name, str) else name.filename())
        self._disk = disk
        self._content = disk.content(self._path)
        self._name_is_synced = not flags[0] & _NAME_IS_SYNCED

    def xWrite(self, data: bytes, offset: int) -> None:
        self._disk.step()
        super().xWrite(data, offset)
        self._content.since.append((offset, bytes(data)))

    def xTruncate(self, newsize: int) -> None:
        self._disk.step()
        super().xTruncate(newsize)
        self._content.since.append((newsize, None))

    def xSync(self, flags: int) -> None:  # noqa: ARG002  as apsw has it
        self._disk.step()
        self._content.sync()
        if not self._name_is_synced:
            self._name_is_synced = True
            self._disk.sync_names(self._path.parent)
