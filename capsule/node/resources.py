"""What a worker is given by the system: its pipes, its page, its directory."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import tempfile
from pathlib import Path

from capsule_protocol import page as shared
from capsule_protocol.errors import SessionError

PIPE_BYTES = 2**20
SOCKET_PATH_BYTES = 107
"""What the system allows for the path of a socket."""


class Descriptors:
    """The pipes and the page, until the worker has them."""

    def __init__(self) -> None:
        self._reads: list[int] = []
        self._given: list[int] = []
        try:
            self._given.append(shared.create())
            for _ in range(2):
                read, write = os.pipe2(os.O_CLOEXEC)
                self._reads.append(read)
                self._given.append(write)
                os.set_blocking(read, False)
                _enlarge(read)
        except OSError:
            self.close()
            raise

    @property
    def page(self) -> int:
        """The descriptor of the page."""
        return self._given[0]

    def given(self) -> list[int]:
        """What goes to the worker: stdout, stderr, page."""
        page, stdout, stderr = self._given
        return [stdout, stderr, page]

    def take_reads(self) -> tuple[int, int]:
        """The node's ends; whoever takes them closes them."""
        stdout, stderr = self._reads
        self._reads.clear()
        return stdout, stderr

    def close(self) -> None:
        """Close what was for the worker, and what nobody has taken. Idempotent."""
        for descriptors in (self._given, self._reads):
            while descriptors:
                os.close(descriptors.pop())


def is_shortage(error: BaseException) -> bool:
    """Whether this process, or the system, has no descriptor left."""
    return isinstance(error, OSError) and error.errno in {errno.EMFILE, errno.ENFILE}


def no_descriptor() -> SessionError:
    """What is told then."""
    return SessionError("descriptors_exhausted", "the node has no file descriptor left for another session")


def _enlarge(pipe: int) -> None:
    """Fewer wake-ups for much output. Beyond the user's quota the pipe stays as it is."""
    try:
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    except PermissionError:
        return


def box_parent(wanted: Path | None) -> Path:
    """Where boxes have their directories: as wanted if that is short enough for the sockets in them."""
    place = Path(wanted or tempfile.gettempdir()).absolute()
    if len(os.fsencode(place)) > SOCKET_PATH_BYTES - len("/capsule-1234567-12345678/control.sock"):
        return Path("/tmp")  # noqa: S108 - mkdtemp makes private directories in it
    return place


def box_directory(parent: Path | None, zygote: int) -> Path:
    """A fresh and private directory for a box. Its name tells the zygote that it may remove it, if it is empty."""
    return Path(tempfile.mkdtemp(prefix=f"capsule-{zygote}-", dir=box_parent(parent)))


def remove_directory(directory: str | Path) -> None:
    """Remove a box's directory; an empty one also where there is no descriptor to look into it."""
    try:
        Path(directory).rmdir()
    except OSError:
        shutil.rmtree(directory, ignore_errors=True)
