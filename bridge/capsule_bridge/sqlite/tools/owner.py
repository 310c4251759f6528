"""Who uses a store at this moment: told by the system's list of locks, because to try the lock would be to take it."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from capsule_bridge.sqlite.files import LOCK_BYTES, lock_owner, lock_path

_LOCKS = Path("/proc/locks")


class Owner(NamedTuple):
    """A process that has the store open; `use`: its level of durability, or `compact`. Either may be unknown."""

    process: str
    use: str


def owner_of(path: Path) -> Owner | None:
    """Who holds the lock of the store, or None: nobody does, or the system does not tell."""
    lock = lock_path(path)
    with suppress(OSError):
        inode = str(lock.stat().st_ino)
        if inode in _locked():
            with lock.open("rb") as file:
                return Owner(*lock_owner(file.read(LOCK_BYTES)))
    return None


def _locked() -> set[str]:
    """The inodes of all files that are locked by flock. The device is left out: file systems in layers tell another."""
    lines = (line.split() for line in _LOCKS.read_text(encoding="ascii").splitlines())
    return {fields[5].rpartition(":")[2] for fields in lines if len(fields) > 5 and fields[1] == "FLOCK"}
