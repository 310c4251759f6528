"""The directories of boxes: whose they are, and the removal of those that have become nobody's.

A box removes its own. If node, zygote and box are all killed, or the machine stops, nobody is left to do it; then the
next zygote that starts in the same place does. It must never take what belongs to a living box of any node, and boxes
outlive their zygotes. So each box holds a lock on its directory, which the kernel lets go of at its death. The lock is
the zygote's at first and goes to the box by the fork. Before that, the zygote that the name tells of is alive.
"""

from __future__ import annotations

import fcntl
import os
import re
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from capsule_kernels.box import remove_tree

if TYPE_CHECKING:
    from collections.abc import Iterator

_NAME = re.compile(r"capsule-([0-9]+)-[a-z0-9_]{8}")
"""What `mkdtemp` makes of the node's prefix, which has the process id of the zygote."""
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_ENDED = (b"Z", b"X")


@contextmanager
def held(path: str) -> Iterator[int]:
    """A descriptor with a lock on a directory; a child that is forked meanwhile holds it as long as it keeps that."""
    descriptor = os.open(path, _DIRECTORY)
    try:
        # Where directories cannot be locked nobody can sweep them either.
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        yield descriptor
    finally:
        os.close(descriptor)


def sweep(parent: str) -> None:
    """Remove this user's directories of boxes in `parent` that belong to nobody any more. Never fails."""
    with suppress(OSError), os.scandir(parent) as entries:
        for entry in entries:
            name = _NAME.fullmatch(entry.name)
            # In this order: a zygote that has ended locks nothing any more.
            if name is not None and not _is_zygote(int(name[1])):
                with suppress(OSError):
                    _remove(entry.path)


def remove_empty(parent: str, zygote: int) -> None:
    """Remove what the node made for boxes of this zygote that will not come to life any more.

    One in which a worker has bound its sockets belongs to its box, which removes it.
    """
    for path in Path(parent).glob(f"capsule-{zygote}-*"):
        with suppress(OSError):
            path.rmdir()


def _remove(path: str) -> None:
    descriptor = os.open(path, _DIRECTORY)
    try:
        if os.fstat(descriptor).st_uid == os.geteuid():
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            remove_tree(path)
    finally:
        os.close(descriptor)


def _is_zygote(pid: int) -> bool:
    """Whether this is a living zygote: in doubt, yes. One that nobody reaps is dead all the same."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False
    except OSError:
        return True
    name, _, rest = stat.partition(b" (")[2].rpartition(b") ")
    return name == b"capsule-zygote" and not rest.startswith(_ENDED)
