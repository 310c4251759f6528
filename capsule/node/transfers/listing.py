"""What files there are below a directory."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from capsule.beneath import FOLDER, MAX_DEPTH
from capsule.node.info import FileInfo
from capsule_protocol.errors import SessionError

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_ENTRIES = 20_000
"""Files and folders that a listing looks at; code that nobody trusts can make any number."""


def list_files(top: int) -> list[FileInfo]:
    """All regular files below the folder, by name. Raises SessionError `too_many_files`.

    Links, devices and pipes are left out, as is what has a name that is not UTF-8, and what vanishes meanwhile.
    """
    found: list[FileInfo] = []
    for seen, (name, status) in enumerate(_walk(top, "", 1)):
        if seen >= MAX_ENTRIES:
            raise SessionError("too_many_files", f"the session has more than {MAX_ENTRIES} files and folders")
        if stat.S_ISREG(status.st_mode) and _is_text(name):
            found.append(FileInfo(name, status.st_size, status.st_mtime))
    return sorted(found, key=lambda file: file.name)


def _walk(folder: int, prefix: str, depth: int) -> Iterator[tuple[str, os.stat_result]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            try:
                status = os.stat(entry.name, dir_fd=folder, follow_symlinks=False)
                yield prefix + entry.name, status
                if not stat.S_ISDIR(status.st_mode) or depth >= MAX_DEPTH:
                    continue
                inner = os.open(entry.name, FOLDER, dir_fd=folder)
            except OSError:  # it is another thing by now, or locked by its owner
                continue
            try:
                yield from _walk(inner, f"{prefix}{entry.name}/", depth + 1)
            finally:
                os.close(inner)


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
