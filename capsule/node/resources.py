"""What a worker is given by the system: its pipes, its page, its directory."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from capsule_protocol import page as shared
from capsule_protocol.errors import SessionError

if TYPE_CHECKING:
    from collections.abc import Sequence

PIPE_BYTES = 2**20
_ENDED = (b"Z", b"X")
"""States of a process that has ended, also if nobody has reaped it."""
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
                enlarge(read, PIPE_BYTES)
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


class Inherited:
    """The same, of a box that another node has left: the worker has its ends already."""

    def __init__(self, descriptors: Sequence[int]) -> None:
        *self._reads, self._page = descriptors

    @property
    def page(self) -> int:
        """The descriptor of the page."""
        return self._page

    def given(self) -> list[int]:
        """Nothing: it is not given again."""
        return []

    def take_reads(self) -> tuple[int, int]:
        """The node's ends; whoever takes them closes them."""
        stdout, stderr = self._reads
        self._reads.clear()
        return stdout, stderr

    def close(self) -> None:
        """Close the page's descriptor, and what nobody has taken. Idempotent."""
        for descriptor in (self._page, *self._reads):
            if descriptor >= 0:
                os.close(descriptor)
        self._page = -1
        self._reads.clear()


def enlarge(pipe: int, size: int) -> None:
    """Fewer wake-ups for much output. Beyond the user's quota the pipe stays as it is."""
    try:
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, size)
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


def begun(pid: int) -> int:
    """When a process began, in clock ticks since the system booted; 0 if it is gone."""
    try:
        line = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return 0
    state, *fields = line[line.rindex(b")") + 2 :].split()
    return 0 if state in _ENDED else int(fields[18])


def pid_of(pidfd: int) -> int:
    """The number that a process has here; 0 if it is gone, or is in no namespace that is seen from here."""
    text = Path(f"/proc/self/fdinfo/{pidfd}").read_text(encoding="ascii")
    found = next((line.split()[1] for line in text.splitlines() if line.startswith("Pid:")), "0")
    return max(0, int(found))


def seconds_since(ticks: int) -> float:
    """How long ago that was, in clock ticks since the system booted."""
    return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK"))


def remove_directory(directory: str | Path) -> None:
    """Remove a box's directory; an empty one also where there is no descriptor to look into it."""
    try:
        Path(directory).rmdir()
    except OSError:
        shutil.rmtree(directory, ignore_errors=True)
