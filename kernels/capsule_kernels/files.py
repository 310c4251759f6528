"""The files that a session is given: written below its working directory, and nowhere else."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Without O_NONBLOCK a pipe of that name would wait for its reader.
_FILE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def write_all(files: Iterable[tuple[str, bytes | memoryview]]) -> None:
    """Write each file, and make the folders that its name asks for. Raises OSError or ValueError.

    No symbolic link is followed: one in a shared working directory could lead anywhere.
    """
    top = os.open(".", _FOLDER)
    try:
        for name, content in files:
            try:
                _write(top, name, content)
            except OSError as error:
                raise OSError(error.errno, error.strerror, name) from error
    finally:
        os.close(top)


def _write(top: int, name: str, content: bytes | memoryview) -> None:
    *folders, last = _parts(name)
    folder = os.dup(top)
    try:
        for part in folders:
            inner = _enter(folder, part)
            os.close(folder)
            folder = inner
        with os.fdopen(os.open(last, _FILE, 0o666, dir_fd=folder), "wb") as file:
            file.write(content)
    finally:
        os.close(folder)


def _parts(name: str) -> list[str]:
    parts = name.split("/")
    if {"", ".", ".."} & set(parts) or "\0" in name:
        raise ValueError(f"{name!r} is not the name of a file below the working directory")
    return parts


def _enter(folder: int, name: str) -> int:
    with suppress(FileExistsError):  # if it is no folder, opening it says so
        os.mkdir(name, dir_fd=folder)
    return os.open(name, _FOLDER, dir_fd=folder)
