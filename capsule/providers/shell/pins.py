"""What grants name, held by descriptor since they came into force: programs and roots.

What runs is the file that was at the path then. One that has been changed or replaced since is not run at all: whoever
put it there, the operator has not granted it.
"""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from capsule.providers.held import Held, Opened, Shared
from capsule_protocol.errors import ArgumentError, CapabilityFailed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from capsule.providers.shell.scope import ShellScope

_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH
_Identity = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class PinnedProgram:
    """A program's file; `script`: it begins with `#!`."""

    opened: Opened
    script: bool
    real: str


@dataclass(slots=True)
class _Pinned:
    """What one scope names, by path."""

    programs: dict[str, PinnedProgram] = field(default_factory=dict)
    roots: dict[str, Opened] = field(default_factory=dict)


class Pins:
    """Descriptors of programs and roots, for each scope. `close` is idempotent."""

    def __init__(self) -> None:
        self._shared = Shared()
        self._scopes: Held[_Pinned] = Held(self._let_go)

    def pin(self, scope: ShellScope) -> None:
        """Hold what is at the paths of a scope now, for its calls; all or nothing.

        Raises ArgumentError for what should not be run, or is no directory.
        """
        opened = _Pinned()
        try:
            for name, program in scope.programs.items():
                if program.path not in opened.programs:
                    opened.programs[program.path] = self._program(program.path, f"programs.{name}.path")
            for name, root in scope.roots.items():
                if root.path not in opened.roots:
                    opened.roots[root.path] = self._root(root.path, f"roots.{name}.path")
        except BaseException:
            self._let_go(opened)
            raise
        self._scopes.put(scope, opened)

    @contextmanager
    def held(self, scope: ShellScope, path: str) -> Iterator[tuple[PinnedProgram, list[int]]]:
        """A program and the roots of a grant, by descriptors that stay open meanwhile, whatever is pinned.

        Raises CapabilityFailed if the program's file is another one by now.
        """
        found = self._scopes.get(scope)
        pinned = None if found is None else found.programs.get(path)
        if found is None or pinned is None:
            raise CapabilityFailed("program_failed", f"{path} is not among what the grants in force have named")
        descriptors: list[int] = []
        try:
            roots = [found.roots[root.path].descriptor for root in scope.roots.values()]
            _copy([pinned.opened.descriptor, *roots], descriptors)
            if _identity(os.fstat(descriptors[0])) != pinned.opened.identity:
                raise CapabilityFailed(
                    "program_failed",
                    f"{path} has been changed or replaced since its grant came into force",
                    hint="If that was meant, have the node load its policy anew.",
                )
            yield pinned, descriptors
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def close(self) -> None:
        """Let go of all."""
        self._scopes.close()

    def _root(self, path: str, argument: str) -> Opened:
        if not Path(path).is_absolute():
            raise ArgumentError(argument, f"{path!r} is not absolute", allowed="the path of a directory, from /")
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise ArgumentError(argument, f"{path}: {error.strerror}", allowed="a directory") from error
        status = os.fstat(descriptor)
        return self._shared.take(f"{path}/", descriptor, (status.st_dev, status.st_ino))

    def _program(self, path: str, argument: str) -> PinnedProgram:
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
        return PinnedProgram(self._shared.take(path, descriptor, _identity(status)), script, real)

    def _let_go(self, pinned: _Pinned) -> None:
        for opened in [*(program.opened for program in pinned.programs.values()), *pinned.roots.values()]:
            self._shared.give(opened)


def _copy(descriptors: Iterable[int], copies: list[int]) -> None:
    try:
        for descriptor in descriptors:
            copies.append(os.dup(descriptor))  # noqa: PERF401 (those before one that fails are closed)
    except OSError as error:
        raise CapabilityFailed("provider_unavailable", f"no program can be started: {error.strerror}") from error


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
