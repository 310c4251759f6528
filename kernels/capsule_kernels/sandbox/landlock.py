"""Landlock: which paths a process may read, run and write; that it reaches no port, and no process outside.

What is not allowed here is denied whoever owns it. The rules hold for inodes, so they stand in any mount namespace.
Looking whether a path exists is not covered by any version, nor are `chmod` and its like: see `seccomp`.
"""

from __future__ import annotations

import os
import stat
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from capsule_kernels.sandbox.errors import SandboxError
from capsule_kernels.sandbox.syscalls import syscall

if TYPE_CHECKING:
    from collections.abc import Iterable

TRUNCATE_VERSION: Final = 3
"""The version that covers all ways to change a file."""
SCOPE_VERSION: Final = 6
"""The version that covers signals to processes outside."""

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_REMOVE_FILE, _MAKE_REG = 1 << 5, 1 << 8
_MAKE_CHAR, _MAKE_BLOCK = 1 << 6, 1 << 11
_TRUNCATE, _IOCTL_DEV = 1 << 14, 1 << 15
_RIGHTS_BY_VERSION: Final = (0, 13, 14, 15, 15, 16)
"""So many bits each version knows, from 0 on; later ones know as many as the last."""
_NETWORK_VERSION: Final = 4
_BOTH_TCP, _BOTH_SCOPES = 0x3, 0x3
_VERSION_FLAG: Final = 1
_PATH_BENEATH: Final = 1

_READ: Final = _EXECUTE | _READ_FILE | _READ_DIR
_DEVICE: Final = _READ_FILE | _WRITE_FILE | _TRUNCATE
_SHARED: Final = _READ_FILE | _WRITE_FILE | _TRUNCATE | _MAKE_REG | _REMOVE_FILE
"""No listing: what others have there can be opened only by who knows its name."""
_OF_FILES: Final = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
_RULE = struct.Struct("=Qi")
_OPEN: Final = os.O_PATH | os.O_CLOEXEC


class Ruleset:
    """Paths and what may be done beneath them; `restrict` makes it hold, for good. `network`: any port is reached."""

    def __init__(self, *, network: bool = False) -> None:
        known = version()
        if not known:
            raise SandboxError("there is no Landlock", "It needs Linux 5.13 or later with `landlock` in `lsm=`.")
        self._rights = (1 << _RIGHTS_BY_VERSION[min(known, len(_RIGHTS_BY_VERSION) - 1)]) - 1
        handled = struct.pack(
            "=QQQ",
            self._rights,
            _BOTH_TCP if known >= _NETWORK_VERSION and not network else 0,
            _BOTH_SCOPES if known >= SCOPE_VERSION else 0,
        )
        # An older kernel takes a longer structure too, if what it does not know is zero.
        self._descriptor = syscall("landlock_create_ruleset", handled, len(handled), 0)

    def read(self, paths: Iterable[str]) -> None:
        """Let it read and run what is there; a path that is not there is passed by."""
        self._allow(paths, _READ)

    def write(self, paths: Iterable[str]) -> None:
        """Let it do everything but make devices."""
        self._allow(paths, self._rights & ~(_MAKE_CHAR | _MAKE_BLOCK | _IOCTL_DEV))

    def use(self, devices: Iterable[str]) -> None:
        """Let it open devices."""
        self._allow(devices, _DEVICE)

    def share(self, paths: Iterable[str]) -> None:
        """Let it make files in a directory that others use too, and open those whose names it knows."""
        self._allow(paths, _SHARED)

    def restrict(self) -> None:
        """Hold this process, which is single-threaded and can gain no privileges, and all that it starts, to it."""
        try:
            syscall("landlock_restrict_self", self._descriptor, 0)
        finally:
            os.close(self._descriptor)

    def _allow(self, paths: Iterable[str], rights: int) -> None:
        for path in paths:
            with suppress(FileNotFoundError, PermissionError, NotADirectoryError):
                descriptor = os.open(path, _OPEN)
                try:
                    self._add(descriptor, rights & self._rights)
                finally:
                    os.close(descriptor)

    def _add(self, descriptor: int, rights: int) -> None:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            rights &= _OF_FILES
        syscall("landlock_add_rule", self._descriptor, _PATH_BENEATH, _RULE.pack(rights, descriptor), 0)


def version() -> int:
    """What the kernel has of it; 0 for nothing."""
    try:
        return syscall("landlock_create_ruleset", None, 0, _VERSION_FLAG)
    except OSError:
        return 0
