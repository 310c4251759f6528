"""What there is: one path, one directory, or what a pattern finds below one. No link is followed."""

from __future__ import annotations

import fnmatch
import os
import re
from contextlib import suppress
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from capsule import beneath
from capsule.beneath import MAX_DEPTH, Astray
from capsule.providers.files.errors import too_many
from capsule.providers.files.places import kind_of, place
from capsule.providers.files.schemas import Entry, GlobResponse, ListResponse, StatResponse

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

    from capsule.broker.sdk import Call
    from capsule.providers.files.means import Means
    from capsule.providers.files.places import Place
    from capsule.providers.files.schemas import GlobRequest, Kind, PathRequest


async def stat(means: Means, call: Call) -> StatResponse:
    """Tell what is at a path."""
    request: PathRequest = call.request
    with place(means.roots, call.scope, request.path) as at:
        return await means.threads.run(partial(_stat, at))


async def list_(means: Means, call: Call) -> ListResponse:
    """Tell what is in a directory."""
    request: PathRequest = call.request
    with place(means.roots, call.scope, request.path) as at:
        return await means.threads.drive(_list(at, call.scope.max_entries))


async def glob(means: Means, call: Call) -> GlobResponse:
    """Find files and directories by a pattern."""
    request: GlobRequest = call.request
    with place(means.roots, call.scope, request.path) as at:
        search = _Search(at, request.pattern, call.scope.max_entries)
        return await means.threads.drive(search.run())


class Seen(NamedTuple):
    """A name in a directory, and what it was a moment ago."""

    name: str
    kind: Kind
    status: os.stat_result


def scan(folder: int) -> Iterator[Seen | None]:
    """What is in a directory, in no order; None for a name that is not UTF-8. What vanishes meanwhile is left out."""
    with os.scandir(folder) as entries:
        for entry in entries:
            try:
                entry.name.encode()
                status = os.stat(entry.name, dir_fd=folder, follow_symlinks=False)
            except UnicodeEncodeError:
                yield None
            except FileNotFoundError:
                continue
            else:
                yield Seen(entry.name, kind_of(status), status)


def _stat(at: Place) -> StatResponse:
    held = at.hold()
    try:
        status = os.fstat(held)
    finally:
        os.close(held)
    kind = kind_of(status)
    if kind == "other":
        raise Astray("is a special file")
    return StatResponse(kind=kind, size=status.st_size, modified=status.st_mtime, links=status.st_nlink)


def _list(at: Place, most: int) -> Generator[None, None, ListResponse]:
    entries: list[Entry] = []
    left_out = 0
    folder = at.open_folder()
    try:
        for seen in scan(folder):
            if seen is None:
                left_out += 1
            elif len(entries) >= most:
                raise too_many(at.path, "entries", most)
            else:
                status = seen.status
                entries.append(Entry(name=seen.name, kind=seen.kind, size=status.st_size, modified=status.st_mtime))
            yield
    finally:
        os.close(folder)
    entries.sort(key=lambda entry: entry.name)
    return ListResponse(entries=tuple(entries), left_out=left_out)


def _compiled(pattern: str) -> list[re.Pattern[str] | None]:
    """One for each part; None for `**`, of which several in a row are one. At the end that means all below."""
    parts = pattern.split("/")
    parts = [part for before, part in pairwise(["", *parts]) if (before, part) != ("**", "**")]
    if parts[-1] == "**":
        parts.append("*")
    return [None if part == "**" else re.compile(fnmatch.translate(part)) for part in parts]


class _Search:
    """A walk in which each directory has the positions in the pattern that its entries may match next."""

    def __init__(self, at: Place, pattern: str, most: int) -> None:
        self._at = at
        self._text = pattern
        self._pattern: Sequence[re.Pattern[str] | None] = ()
        self._most = most
        self._found: list[str] = []
        self._left_out = 0

    def run(self) -> Generator[None, None, GlobResponse]:
        """All that matches."""
        self._pattern = _compiled(self._text)
        folder = self._at.open_folder()
        try:
            yield from self._walk(folder, self._at.path, len(self._at.parts) + 1, {0})
        finally:
            os.close(folder)
        return GlobResponse(paths=tuple(sorted(self._found)), left_out=self._left_out)

    def _walk(self, folder: int, path: str, depth: int, positions: set[int]) -> Generator[None, None, None]:
        for seen in scan(folder):
            yield
            if seen is None:
                self._left_out += 1
            elif seen.kind in {"file", "directory"} and (after := self._after(positions, seen.name)):
                if depth >= MAX_DEPTH:
                    self._left_out += 1
                    continue
                inner = f"{path}/{seen.name}"
                self._add(inner, after)
                if seen.kind == "directory" and after != {len(self._pattern)}:
                    yield from self._enter(folder, seen.name, inner, depth + 1, after)

    def _enter(self, folder: int, name: str, path: str, depth: int, at: set[int]) -> Generator[None, None, None]:
        inner = -1
        # It is another thing by now, on another file system, or locked by its owner.
        with suppress(OSError, Astray):
            inner = self._open(folder, name)
        if inner < 0:
            return
        try:
            yield from self._walk(inner, path, depth, at)
        finally:
            os.close(inner)

    def _open(self, folder: int, name: str) -> int:
        held = beneath.step(folder, name, mounts=self._at.root.mounts)
        try:
            return beneath.open_folder(held, ())
        finally:
            os.close(held)

    def _after(self, positions: set[int], name: str) -> set[int]:
        """Where in the pattern a name leads from where its directory is."""
        after = set()
        for start in positions:
            for position in range(start, len(self._pattern)):
                part = self._pattern[position]
                if part is not None:
                    if part.match(name):
                        after.add(position + 1)
                    break
                after.add(position)  # `**` may take one more, or nothing: then the next part counts
        return after

    def _add(self, path: str, after: set[int]) -> None:
        if len(self._pattern) not in after:
            return
        if len(self._found) >= self._most:
            raise too_many(self._at.path, "matches", self._most)
        self._found.append(path)
