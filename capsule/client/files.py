"""The files that a session is to be given, checked and read."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

from capsule_protocol.errors import ArgumentError
from capsule_protocol.limits import DEFAULT_LIMITS

Files: TypeAlias = "Mapping[str, str | bytes | bytearray | memoryview | os.PathLike[str]]"
"""Names below the working directory, and for each its content (text becomes UTF-8) or the path of a file to copy."""

_MAPPING = "a mapping of relative names to bytes, str, or the Path of a file"
_NAMES = "'name' or 'folder/name', without '..'"


def check_files(files: Files, limit: int) -> dict[str, bytes]:
    """The contents by name. Raises ArgumentError, also if names and contents together have more bytes than `limit`."""
    if not isinstance(files, Mapping):
        raise ArgumentError("files", f"must be a mapping, not {type(files).__name__}", allowed=_MAPPING)
    if len(files) > DEFAULT_LIMITS.buffers:
        raise ArgumentError("files", f"are {len(files)}", allowed=f"at most {DEFAULT_LIMITS.buffers} files")
    checked: dict[str, bytes] = {}
    left = limit
    for name, content in files.items():
        left -= _name_size(name)
        checked[name] = _content(name, content, left)
        left -= len(checked[name])
        if left < 0:
            allowed = f"at most {limit} bytes, names included (half of message_bytes)"
            raise ArgumentError("files", f"are too large; {name!r} goes beyond the bound", allowed=allowed)
    return checked


def _name_size(name: str) -> int:
    if not isinstance(name, str) or "\0" in name or {"", ".", ".."} & set(name.split("/")):
        raise ArgumentError("files", f"has the name {name!r}", allowed=_NAMES)
    try:
        return len(name.encode())
    except UnicodeEncodeError as error:
        raise ArgumentError("files", f"has the name {name!r}", allowed=_NAMES) from error


def _content(name: str, content: object, left: int) -> bytes:
    """What is to be in the file; of one that is too large, no more than shows that it is."""
    if isinstance(content, (bytes, bytearray, memoryview)):
        return bytes(content)
    if isinstance(content, os.PathLike):
        return _read(name, Path(content), left)
    if not isinstance(content, str):
        raise ArgumentError("files", f"has a {type(content).__name__} for {name!r}", allowed=_MAPPING)
    try:
        return content.encode()
    except UnicodeEncodeError as error:
        raise ArgumentError("files", f"has text for {name!r} that UTF-8 cannot encode", allowed=_MAPPING) from error


def _read(name: str, path: Path, left: int) -> bytes:
    try:
        if not path.is_file():  # a pipe, say, would be waited for
            raise ArgumentError("files", f"has {str(path)!r} for {name!r}, which is not a file", allowed=_MAPPING)
        with path.open("rb") as file:
            return file.read(max(0, left) + 1)
    except (OSError, ValueError) as error:
        if isinstance(error, ArgumentError):
            raise
        raise ArgumentError("files", f"{str(path)!r} cannot be read: {error}", allowed=_MAPPING) from error
