"""Directories made, names changed and taken away."""

from __future__ import annotations

import errno
import os
from contextlib import ExitStack, suppress
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Final

from capsule import beneath
from capsule.beneath import HELD, MAX_DEPTH
from capsule.broker.sdk import Empty
from capsule.providers.files.errors import explained, failed, refused
from capsule.providers.files.names import put
from capsule.providers.files.places import kind_of, known, place

if TYPE_CHECKING:
    from collections.abc import Generator

    from capsule.broker.sdk import Call
    from capsule.providers.files.means import Means
    from capsule.providers.files.places import Place
    from capsule.providers.files.schemas import MkdirRequest, MoveRequest, RemoveRequest

_BATCH: Final = 256
"""Names that are read before they are taken away."""


async def mkdir(means: Means, call: Call) -> Empty:
    """Make a directory."""
    request: MkdirRequest = call.request
    with place(means.roots, call.scope, request.path) as at:
        await means.threads.run(partial(_mkdir, at, parents=request.parents, exist_ok=request.exist_ok))
    return Empty()


async def move(means: Means, call: Call) -> Empty:
    """Give a file or a directory another path."""
    request: MoveRequest = call.request
    with (
        place(means.roots, call.scope, request.target) as target,
        place(means.roots, call.scope, request.source) as source,
    ):
        await means.threads.run(partial(_move, source, target, overwrite=request.overwrite))
    return Empty()


async def remove(means: Means, call: Call) -> Empty:
    """Take a file or a directory away."""
    request: RemoveRequest = call.request
    with place(means.roots, call.scope, request.path) as at:
        try:
            await means.threads.drive(_remove(at, recursive=request.recursive))
        except FileNotFoundError:
            if not request.missing_ok:
                raise
    return Empty()


def _mkdir(at: Place, *, parents: bool, exist_ok: bool) -> None:
    """What was made on the way is taken away again if the rest cannot be made."""
    *folders, last = at.parts
    with ExitStack() as held, ExitStack() as undo:
        folder = os.open(".", HELD, dir_fd=at.top)
        held.callback(os.close, folder)
        for part in folders:
            if parents and _made(folder, part):
                undo.callback(_unmake, folder, part)
            folder = beneath.step(folder, part, mounts=at.root.mounts)
            held.callback(os.close, folder)
        if not _made(folder, last) and not (_is_folder(folder, last) and exist_ok):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        undo.pop_all()


def _made(folder: int, name: str) -> bool:
    try:
        os.mkdir(name, 0o777, dir_fd=folder)
    except FileExistsError:
        return False
    return True


def _is_folder(folder: int, name: str) -> bool:
    status = known(folder, name)
    return status is not None and kind_of(status) == "directory"


def _unmake(folder: int, name: str) -> None:
    with suppress(OSError):  # somebody has put something there
        os.rmdir(name, dir_fd=folder)


def _move(source: Place, target: Place, *, overwrite: bool) -> None:
    with source.parent() as (folder, name):
        status = known(folder, name)
        if status is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        _check_gain(source, target, status)
        with explained(target.path), target.parent() as (into, new):
            before = known(into, new)
            if before is not None and kind_of(before) == "file":
                target.check_links(before)
            try:
                put((folder, name), (into, new), replace=overwrite)
            except OSError as error:
                if error.errno in {errno.EXDEV, errno.EINVAL}:
                    why = "is on another file system" if error.errno == errno.EXDEV else "cannot be moved there"
                    raise failed(source.path, f"{why}: {target.path[:200]!r}") from error
                raise


def _check_gain(source: Place, target: Place, status: os.stat_result) -> None:
    """Raise CapabilityDenied where moving it would have a file read that may not be read where it is.

    What is below a directory could be anything by the time it is moved, so its files are not looked at.
    """
    if target.root.hard_links and not source.root.hard_links and (status.st_nlink > 1 or kind_of(status) != "file"):
        raise refused(source.path, "has several names (hard links), or files with some: the other root would show them")
    if target.root.mounts and not source.root.mounts and kind_of(status) != "file":
        raise refused(source.path, "may have other file systems in it: the other root would show them")


def _remove(at: Place, *, recursive: bool) -> Generator[None, None, None]:
    with at.parent() as (folder, name):
        status = known(folder, name)
        if status is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        if kind_of(status) == "file":
            os.unlink(name, dir_fd=folder)
            return
        if recursive:
            yield from _empty(at, folder, name, len(at.parts))
        os.rmdir(name, dir_fd=folder)


def _empty(at: Place, outer: int, name: str, depth: int) -> Generator[None, None, None]:
    """Take away all that is in a directory; a link goes, and not what it leads to."""
    if depth > MAX_DEPTH:
        raise refused(at.path, f"has more than {MAX_DEPTH} directories in one another")
    held = beneath.step(outer, name, mounts=at.root.mounts)
    try:
        folder = beneath.open_folder(held, ())
    finally:
        os.close(held)
    try:
        while names := _names(folder):
            for inner, is_folder in names:
                with suppress(FileNotFoundError):
                    if is_folder:
                        yield from _empty(at, folder, inner, depth + 1)
                        os.rmdir(inner, dir_fd=folder)
                    else:
                        os.unlink(inner, dir_fd=folder)
                yield
    finally:
        os.close(folder)


def _names(folder: int) -> list[tuple[str, bool]]:
    with os.scandir(folder) as entries:
        return [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in islice(entries, _BATCH)]
