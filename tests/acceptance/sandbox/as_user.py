"""Runs a command as an ordinary user, from tests that run as root: `python as_user.py UID HOME COMMAND...`.

An interpreter below `/root` is of no use to another user, who cannot enter that directory. So the command gets a mount
namespace of its own, in which every directory on the way that shuts others out is covered by an empty one, with only
what the command needs bound into it. Everything keeps its path, and nothing of the machine's own changes.
"""

from __future__ import annotations

import ctypes
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NoReturn

ORDINARY: Final = 61_234
"""A user id that nobody has."""

_CLONE_NEWNS = 0x00020000
_MS_BIND, _MS_MOVE, _MS_REC, _MS_PRIVATE = 4096, 8192, 16384, 1 << 18
_OTHERS_ENTER = 0o001

_libc = ctypes.CDLL(None, use_errno=True)


def command(home: Path, *words: str, uid: int = ORDINARY) -> list[str]:
    """What to start, as root, so that these words run as that user, with this directory for all that they write."""
    return [sys.executable, "-P", __file__, str(uid), str(home), *words]


@contextmanager
def own_home(uid: int = ORDINARY) -> Iterator[Path]:
    """A directory of that user's own, with a short path, for as long as it is needed."""
    with tempfile.TemporaryDirectory(prefix="co-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        os.chown(folder, uid, uid)
        Path(folder).chmod(0o755)
        yield Path(folder)


def needed() -> list[Path]:
    """Where the interpreter and its packages are, and these tests."""
    here = Path(__file__).parents[3]
    return [Path(path).resolve() for path in (sys.base_prefix, sys.prefix, here)]


def main(uid: int, home: str, words: list[str]) -> NoReturn:
    """Become that user, in a mount namespace where what is needed can be reached, and run the command."""
    _call(_libc.unshare(_CLONE_NEWNS))
    _mount(None, "/", _MS_REC | _MS_PRIVATE)
    for closed, paths in _closed(needed()).items():
        _cover(closed, paths)
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    os.environ.update(HOME=home, TMPDIR=home, USER="ordinary", LOGNAME="ordinary", PYTHONDONTWRITEBYTECODE="1")
    os.environ.pop("XDG_RUNTIME_DIR", None)
    os.environ.pop("XDG_STATE_HOME", None)
    os.execvp(words[0], words)


def _closed(paths: list[Path]) -> dict[Path, list[Path]]:
    """The topmost directories that others cannot enter, each with what is needed below it."""
    found: dict[Path, list[Path]] = {}
    for path in paths:
        for parent in reversed(path.parents):
            if not parent.stat().st_mode & _OTHERS_ENTER:
                found.setdefault(parent, []).append(path)
                break
    return found


def _cover(closed: Path, paths: list[Path]) -> None:
    """Put an empty directory that all can enter over one, with these paths in it as they were."""
    outermost = [path for path in paths if not any(other in path.parents for other in paths)]
    with tempfile.TemporaryDirectory(prefix="ct-", dir="/tmp") as folder:
        held = [Path(folder, str(number)) for number in range(len(outermost))]
        for path, aside in zip(outermost, held, strict=True):
            aside.mkdir()
            _mount(str(path), str(aside), _MS_BIND | _MS_REC)
        _mount("tmpfs", str(closed), 0, "mode=755")
        for path, aside in zip(outermost, held, strict=True):
            path.mkdir(parents=True, exist_ok=True)
            _mount(str(aside), str(path), _MS_MOVE)


def _mount(source: str | None, target: str, flags: int, options: str = "") -> None:
    kind = b"tmpfs" if source == "tmpfs" else None
    where = None if source is None else os.fsencode(source)
    _call(_libc.mount(where, os.fsencode(target), kind, ctypes.c_ulong(flags), options.encode() or None))


def _call(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3:])
