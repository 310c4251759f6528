"""The directory of the node's socket, that of the boxes, and that of the store."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from capsule.doctor.finding import Finding
from capsule.node.resources import box_parent
from capsule.runtime import UNIX, check_directory, check_place, runtime_directory, store_path
from capsule_bridge.places import POSTGRES
from capsule_protocol.errors import NodeError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from capsule.config import NodeConfig

LITTLE = 64 * 2**20
"""Bytes below which sessions that write files, and pages of memory on a tmpfs, soon get into trouble."""
FEW = 1000
"""Files below which the same holds: each box has a directory and two sockets."""


def examine(config: NodeConfig) -> list[Finding]:
    """What is to be said of them."""
    place = box_parent(config.directory)
    runtime = _runtime(config.serve.directory or runtime_directory())
    return [runtime, *_places(config.serve.listen), _boxes(place, config), _space(place), _store(config)]


def _places(addresses: Iterable[str]) -> Iterator[Finding]:
    """The directories of further sockets that are not fit for them."""
    for address in addresses:
        if address.startswith(UNIX):
            try:
                check_place(Path(address.removeprefix(UNIX)).parent)
            except NodeError as error:
                yield Finding("runtime_directory", "error", error.message, error.hint)


def _runtime(directory: Path) -> Finding:
    if not os.path.lexists(directory):
        if os.access(directory.parent, os.W_OK | os.X_OK):
            return Finding("runtime_directory", "ok", f"{directory} will be made by the first node")
        hint = "Set XDG_RUNTIME_DIR to a directory of this user, or `serve.directory` of the configuration."
        return Finding("runtime_directory", "error", f"{directory} cannot be made: {directory.parent} is closed", hint)
    try:
        check_directory(directory)
    except NodeError as error:
        return Finding("runtime_directory", "error", error.message, error.hint)
    return Finding("runtime_directory", "ok", f"{directory} is this user's alone")


def _boxes(place: Path, config: NodeConfig) -> Finding:
    try:
        Path(tempfile.mkdtemp(prefix="capsule-doctor-", dir=place)).rmdir()
    except OSError as error:
        message = f"no directory can be made in {place}: {error.strerror}"
        return Finding("box_directory", "error", message, "Set `directory` of the configuration, or TMPDIR.")
    wanted = Path(config.directory or tempfile.gettempdir()).absolute()
    if place != wanted:
        message = f"the path {wanted} is too long for the sockets of boxes: {place} is used"
        return Finding("box_directory", "warning", message, "Choose a shorter `directory`.")
    return Finding("box_directory", "ok", f"{place} can be written")


def _store(config: NodeConfig) -> Finding:
    """The place of a store that is, or has, a file on this machine."""
    url = config.store.url
    if config.store.durability == "none":
        return Finding("store_space", "ok", "nothing is written down")
    if url is not None and url.get_secret_value().startswith(POSTGRES):
        return Finding("store_space", "ok", "the store is a database, which looks after its room")
    file = store_path(config).absolute()
    place = next(each for each in file.parents if each.is_dir())  # the first node makes what is below
    try:
        Path(tempfile.mkdtemp(prefix="capsule-doctor-", dir=place)).rmdir()
    except OSError as error:
        message = f"the store cannot be written in {place}: {error.strerror}"
        return Finding("store_space", "error", message, "Make room there, or set `path` in `[store]`.")
    return _space(place, "store_space", "Make room, or set `path` in `[store]` to a place that has more.")


def _space(
    place: Path, code: str = "box_space", hint: str = "Make room, or set `directory` to a place that has more."
) -> Finding:
    try:
        free, files = shutil.disk_usage(place).free, os.statvfs(place)
    except OSError as error:
        return Finding(code, "error", f"{place} cannot be looked at: {error.strerror}")
    # Some file systems do not count files, and say 0 of 0.
    few = files.f_files > 0 and files.f_favail < FEW
    message = f"{free // 2**20} MiB and {files.f_favail if files.f_files else 'any number of'} files free in {place}"
    if free < LITTLE or few:
        return Finding(code, "warning", message, hint)
    return Finding(code, "ok", message)
