"""The names of a session's files: opened beneath its directory, and refused in the words of transfers."""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from capsule import beneath
from capsule.beneath import FOLDER, Astray
from capsule_protocol.errors import SessionError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from capsule.node.scratch import Scratch

MAX_NAME_BYTES = beneath.MAX_PATH_BYTES

_LEADS_ASTRAY = frozenset({errno.ELOOP, errno.EXDEV, errno.ENXIO, errno.EISDIR, errno.ENODEV})


def parts_of(name: str) -> list[str]:
    """The steps of a relative name. Raises SessionError `file_refused` for what is no name below a directory."""
    try:
        return beneath.parts_of(name)
    except Astray as error:
        raise refused(name, f"{error}, below the session's directory") from error


def open_top(box: Path | Scratch, name: str) -> int:
    """A descriptor of a folder in a box's directory, neither of which may have become a link."""
    outer = os.open(box, FOLDER) if isinstance(box, Path) else box.open()
    try:
        return os.open(name, FOLDER, dir_fd=outer)
    finally:
        os.close(outer)


def open_file(top: int, name: str) -> tuple[int, os.stat_result]:
    """A regular file beneath `top`, to be read. Raises SessionError `file_unknown` or `file_refused`."""
    parts = parts_of(name)
    with explained(name):
        return beneath.open_file(top, parts, os.O_RDONLY)


@contextmanager
def folder_of(top: int, name: str, *, create: bool = False) -> Iterator[tuple[int, str]]:
    """The folder of a name beneath `top`, as a descriptor, and the last part. Raises as `open_file`."""
    *folders, last = parts_of(name)
    with explained(name):
        descriptor = _make_folders(top, folders) if create else beneath.open_folder(top, folders)
    try:
        yield descriptor, last
    finally:
        os.close(descriptor)


@contextmanager
def explained(name: str) -> Iterator[None]:
    """What the system says of a name, as an error of ours."""
    try:
        yield
    except Astray as error:
        raise refused(name, str(error)) from error
    except FileNotFoundError:
        raise SessionError("file_unknown", f"the session has no file {name[:200]!r}") from None
    except OSError as error:
        if error.errno in _LEADS_ASTRAY or isinstance(error, NotADirectoryError):
            raise refused(name, "leads through or to something else than folders and a regular file") from error
        raise failed(name, error) from error


def refused(name: str, why: str) -> SessionError:
    """The one error for a name that leads elsewhere, whatever it is."""
    return SessionError("file_refused", f"{name[:200]!r} {why}")


def failed(name: str, error: OSError) -> SessionError:
    """The disk is full, or something of that kind."""
    return SessionError("transfer_failed", f"{name[:200]!r}: {error.strerror or error}")


def _make_folders(top: int, folders: Sequence[str]) -> int:
    folder = os.dup(top)
    for part in folders:
        made = False
        try:
            with suppress(FileExistsError):  # if it is no folder, opening it says so
                os.mkdir(part, 0o777, dir_fd=folder)
                made = True
            inner = os.open(part, FOLDER, dir_fd=folder)
        finally:
            os.close(folder)
        folder = inner
        if made:
            give(folder, top)
    return folder


def give(descriptor: int, top: int) -> None:
    """Let what this node has just made belong to whom `top` does: in a sandbox, code may run as a user of its own."""
    owner = os.fstat(top)
    if os.fstat(descriptor).st_uid == os.geteuid() != owner.st_uid:
        os.fchown(descriptor, owner.st_uid, owner.st_gid)
