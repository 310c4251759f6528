"""The classic race: a name becomes another thing between a look at it and its use, for as many rounds as wanted."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from capsule_protocol.errors import CapabilityError
from tests.acceptance.providers.files.asked import EVERY, ask

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.acceptance.providers.calls import Caller

SWAP = """
import ctypes, sys
libc = ctypes.CDLL(None)
one, other = (name.encode() for name in sys.argv[1:])
print("swapping", flush=True)
while True:
    libc.renameat2(-100, one, -100, other, 2)  # RENAME_EXCHANGE: at each moment there are both
"""
NORMAL = {"path_refused", "path_unknown", "path_exists", "path_is_directory", "path_not_directory", "path_not_empty"}


@contextmanager
def swapped(*pairs: tuple[Path, Path]) -> Iterator[None]:
    """Names that change places as fast as can be, each pair by a process of its own."""
    running = []
    try:
        for one, other in pairs:
            command = [sys.executable, "-c", SWAP, str(one), str(other)]
            swapping = subprocess.Popen(command, stdout=subprocess.PIPE)
            running.append(swapping)
            assert swapping.stdout is not None
            swapping.stdout.readline()
        yield
    finally:
        for swapping in running:
            swapping.kill()
            swapping.communicate()


class Attack:
    """A root in which a directory and files keep changing places with links that lead out, and with a hard link.

    What is outside has the same names and another content, so that a call that got there would be seen to.
    """

    def __init__(self, files: Caller, root: Path, outside: Path) -> None:
        self.seen: dict[str, set[str]] = {what: set() for what in EVERY}
        self._files = files
        self._root = root
        self._outside = outside
        self._fill(outside, "secret")
        (outside / "only outside").touch()
        os.utime(outside / "file", (1000, 1000))
        self._before = contents(outside)
        (root / "flat").mkdir()
        self._mend()

    async def run(self, rounds: int) -> None:
        """Each a call; it goes on until all that look and all that change have met with both."""
        root = self._root
        with swapped(*((root / one, root / other) for one, other in PAIRS)):
            for number in itertools.count():
                met_both = all(seen >= {"done", "path_refused"} for seen in self.seen.values())
                if number >= rounds and met_both:
                    break
                what = EVERY[number % len(EVERY)]
                self._mend()
                await self._once(what, PATHS[what][number // len(EVERY) % len(PATHS[what])])
        assert contents(self._outside) == self._before
        assert set().union(*self.seen.values()) <= {"done", *NORMAL}

    async def _once(self, what: str, path: str) -> None:
        try:
            answer = await ask(self._files, what, path)
        except CapabilityError as error:
            self.seen[what].add(error.code)
            return
        self.seen[what].add("done")
        assert b"secret" not in answer.data, path
        assert getattr(answer.value, "modified", 0) != 1000, path
        told = [entry.name for entry in getattr(answer.value, "entries", ())]
        assert not [name for name in [*told, *getattr(answer.value, "paths", ())] if "only outside" in name], path
        self._look_at(self._root / "moved")

    @staticmethod
    def _look_at(moved: Path) -> None:
        """A link that was swapped in at the last moment may have been moved itself, and leads nowhere from there."""
        if moved.is_dir() and not moved.is_symlink():
            assert "only outside" not in os.listdir(moved)  # noqa: PTH208
            shutil.rmtree(moved)
        elif os.path.lexists(moved):
            assert moved.is_symlink() or moved.read_text() != "secret"
            moved.unlink()

    def _mend(self) -> None:
        """Make again what calls have taken away: of two names that are swapped one is real, the other a link."""
        root = self._root
        (root / "bait").write_text("inside")
        for one, other, target in (("folder", "link", "../outside"), ("flat/file", "flat/link", "../../outside/file")):
            missing = [root / name for name in (one, other) if not os.path.lexists(root / name)]
            for path in missing:
                if len(missing) == 2 or not any((root / name).is_symlink() for name in (one, other)):
                    path.symlink_to(target)
                    missing = []
                elif one == "folder":
                    path.mkdir()
                else:
                    path.write_text("inside")
        self._mend_hard(root / "flat/plain", root / "flat/hard")
        real = next((root / name for name in ("folder", "link") if not (root / name).is_symlink()), None)
        if real is not None:
            self._refill(real)

    def _mend_hard(self, one: Path, other: Path) -> None:
        """One is a file of the root, the other a second name of the one outside. While one is missing, nobody swaps."""
        if one.exists() and other.exists() and not self._is_outside(one, other):
            other.unlink()
        for path in (one, other):
            if path.exists():
                continue
            if self._is_outside(one, other):
                path.write_text("inside")
            else:
                path.hardlink_to(self._outside / "file")

    def _is_outside(self, *paths: Path) -> bool:
        return any(path.exists() and path.samefile(self._outside / "file") for path in paths)

    def _refill(self, real: Path) -> None:
        try:
            folder = os.open(real, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:  # swapped since
            return
        try:
            self._fill(Path(f"/proc/self/fd/{folder}"), "inside")
        finally:
            os.close(folder)

    @staticmethod
    def _fill(folder: Path, content: str) -> None:
        (folder / "inner").mkdir(exist_ok=True)
        for name in ("file", "victim", "inner/file"):
            if not (folder / name).exists():
                (folder / name).write_text(content)


PAIRS = [("folder", "link"), ("flat/file", "flat/link"), ("flat/plain", "flat/hard")]
PATHS = {
    "read": ["data/folder/file", "data/folder/inner/file", "data/flat/file", "data/flat/plain"],
    "list": ["data/folder"],
    "stat": ["data/folder/file", "data/flat/file"],
    "glob": ["data", "data/folder"],
    "watch": ["data/folder"],
    "write": ["data/folder/file", "data/folder/new", "data/flat/file", "data/flat/plain"],
    "append": ["data/folder/file", "data/folder/new", "data/flat/file", "data/flat/plain"],
    "mkdir": ["data/folder/made/more", "data/folder/made"],
    "remove": ["data/folder/victim", "data/folder/inner", "data/folder", "data/flat/file", "data/flat/plain"],
    "move from": ["data/folder/victim", "data/folder/inner", "data/folder", "data/flat/file"],
    "move to": ["data/folder/file", "data/folder/new", "data/flat/file", "data/flat/plain"],
}
"""What each operation is asked for while they are swapped."""


def contents(directory: Path) -> dict[str, str]:
    """All that is in a directory."""
    return {
        str(path.relative_to(directory)): path.read_text() if path.is_file() else "directory"
        for path in directory.rglob("*")
    }
