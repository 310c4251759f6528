"""What grants name, held by descriptor since they came into force: programs and roots.

What runs is the file that was at the path then. One that has been changed or replaced since is not run at all: whoever
put it there, the operator has not granted it.
"""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from capsule_protocol.errors import ArgumentError, CapabilityFailed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH
_Identity = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class PinnedProgram:
    """A program's file; `script`: it begins with `#!`."""

    descriptor: int
    identity: _Identity
    script: bool
    real: str


class Pins:
    """Descriptors of programs and roots, one for each path. `close` is idempotent."""

    def __init__(self) -> None:
        self._programs: dict[str, PinnedProgram] = {}
        self._roots: dict[str, int] = {}

    def pin(self, programs: Mapping[str, str], roots: Mapping[str, str]) -> None:
        """Hold what is at these paths now, by the names of the arguments that gave them; all or nothing.

        Raises ArgumentError for what should not be run, or is no directory.
        """
        opened = Pins()
        try:
            for argument, path in programs.items():
                opened._programs[path] = opened._programs.get(path) or _open_program(path, argument)
            for argument, path in roots.items():
                if path not in opened._roots:
                    opened._roots[path] = _open_root(path, argument)
        except BaseException:
            opened.close()
            raise
        Pins._close(
            [self._programs[path].descriptor for path in opened._programs.keys() & self._programs.keys()]
            + [self._roots[path] for path in opened._roots.keys() & self._roots.keys()]
        )
        self._programs |= opened._programs
        self._roots |= opened._roots

    @contextmanager
    def held(self, path: str, roots: Iterable[str]) -> Iterator[tuple[PinnedProgram, list[int]]]:
        """The program and the roots of a grant in force, by descriptors that stay open meanwhile, whatever is pinned.

        Raises CapabilityFailed if the program's file is another one by now.
        """
        pinned = self._programs.get(path)
        if pinned is None:
            raise CapabilityFailed("program_failed", f"{path} is not among what the grants in force have named")
        descriptors: list[int] = []
        try:
            _copy([pinned.descriptor, *(self._roots[root] for root in roots)], descriptors)
            if _identity(os.fstat(descriptors[0])) != pinned.identity:
                raise CapabilityFailed(
                    "program_failed",
                    f"{path} has been changed or replaced since its grant came into force",
                    hint="If that was meant, have the node load its policy anew.",
                )
            yield pinned, descriptors
        finally:
            Pins._close(descriptors)

    def close(self) -> None:
        """Let go of all."""
        while self._programs:
            os.close(self._programs.popitem()[1].descriptor)
        while self._roots:
            os.close(self._roots.popitem()[1])

    @staticmethod
    def _close(descriptors: Iterable[int]) -> None:
        for descriptor in descriptors:
            os.close(descriptor)


def _copy(descriptors: Iterable[int], copies: list[int]) -> None:
    try:
        for descriptor in descriptors:
            copies.append(os.dup(descriptor))  # noqa: PERF401 (those before one that fails are closed)
    except OSError as error:
        raise CapabilityFailed("provider_unavailable", f"no program can be started: {error.strerror}") from error


def _open_root(path: str, argument: str) -> int:
    if not Path(path).is_absolute():
        raise ArgumentError(argument, f"{path!r} is not absolute", allowed="the path of a directory, from /")
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise ArgumentError(argument, f"{path}: {error.strerror}", allowed="a directory") from error


def _open_program(path: str, argument: str) -> PinnedProgram:
    if not Path(path).is_absolute():
        raise ArgumentError(argument, f"{path!r} is not absolute", allowed="the path of a program, from /")
    try:
        real = os.path.realpath(path, strict=True)
        descriptor = os.open(real, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise ArgumentError(
            argument, f"{path}: {error.strerror}", allowed="a program that the node can read"
        ) from error
    try:
        status = os.fstat(descriptor)
        _check_trust(real, status, argument)
        script = os.pread(descriptor, 2, 0) == b"#!"
    except BaseException:
        os.close(descriptor)
        raise
    return PinnedProgram(descriptor, _identity(status), script, real)


def _check_trust(real: str, status: os.stat_result, argument: str) -> None:
    """Only the node's user and root may be able to put another program there."""
    trusted = {0, os.geteuid()}
    if not stat.S_ISREG(status.st_mode) or not status.st_mode & 0o111:
        raise ArgumentError(argument, f"{real} is no program", allowed="a regular file that may be executed")
    if status.st_mode & _WRITABLE_BY_OTHERS or status.st_uid not in trusted:
        allowed = "a program of root or of the node's user that no other may write"
        raise ArgumentError(argument, f"others may change {real}", allowed=allowed)
    for folder in Path(real).parents:
        mode = folder.stat()
        loose = mode.st_mode & stat.S_IWOTH and not mode.st_mode & stat.S_ISVTX
        if loose or mode.st_uid not in trusted:
            allowed = "a program whose folders belong to root or to the node's user"
            raise ArgumentError(argument, f"others may replace what is in {folder}", allowed=allowed)


def _identity(status: os.stat_result) -> _Identity:
    """Any change to content, mode, owner or links of a file changes its ctime, and nobody can set that."""
    return status.st_dev, status.st_ino, status.st_size, status.st_ctime_ns
