"""Who the code runs as, and how much one process of it may have: nothing that it could give back to itself."""

from __future__ import annotations

import ctypes
import os
import resource
import struct
from contextlib import suppress
from typing import Final

from capsule_kernels.sandbox.errors import SandboxError
from capsule_kernels.sandbox.syscalls import prctl, syscall

FIRST_USER: Final = 0x7000_0000
"""User ids from here on belong to no account: systemd's own list leaves them free. The box's process id is added."""
PROCESSES: Final = 256
"""Processes and threads, where they are counted for the box alone."""
OPEN_FILES: Final = 65_536
"""Descriptors of a process, whatever it asks for."""

_SET_DUMPABLE, _CAPBSET_DROP, _SET_NO_NEW_PRIVS = 4, 24, 38
_CAP_AMBIENT, _CAP_AMBIENT_RAISE, _CAP_AMBIENT_CLEAR_ALL = 47, 2, 4
_HEADER: Final = 0x20080522.to_bytes(4, "little") + bytes(4)
"""Of a set of capabilities: its version, and whose it is, which is one's own."""
_SETS: Final = struct.Struct("=6I")
"""Effective, permitted and inheritable ones, first the lower 32 of each."""
_MOST_CAPABILITIES: Final = 64


def become(user: int, group: int) -> None:
    """Be this user from here on. Raises SandboxError where there is no such user."""
    try:
        os.setgroups([])
        os.setresgid(group, group, group)
        os.setresuid(user, user, user)
    except OSError as error:
        raise SandboxError(
            f"workers cannot run as user {user}: {error.strerror}",
            "Here are fewer user ids than elsewhere, as in a container; set `uid` to one that there is.",
        ) from error


def bound_capabilities() -> None:
    """Have no program that is run bring any; as root, before one becomes another user, who may not do that."""
    for number in range(_MOST_CAPABILITIES):
        try:
            prctl(_CAPBSET_DROP, number)
        except OSError:  # an ordinary user, or the last one
            break


def drop_capabilities() -> None:
    """Keep none, and get none from any program that is run."""
    with suppress(OSError):
        prctl(_CAP_AMBIENT, _CAP_AMBIENT_CLEAR_ALL)
    syscall("capset", _HEADER, bytes(24))
    prctl(_SET_NO_NEW_PRIVS, 1)


def keep_capabilities() -> None:
    """Keep them when another program is run: who is not root would lose them."""
    sets = ctypes.create_string_buffer(_SETS.size)
    syscall("capget", _HEADER, sets)
    effective, permitted, _, effective_above, permitted_above, _ = _SETS.unpack(sets)
    kept = (effective, permitted, permitted, effective_above, permitted_above, permitted_above)
    syscall("capset", _HEADER, _SETS.pack(*kept))
    for number in range(_MOST_CAPABILITIES):
        if (permitted | permitted_above << 32) >> number & 1:
            prctl(_CAP_AMBIENT, _CAP_AMBIENT_RAISE, number)


def stay_visible() -> None:
    """To the node and to itself: a process that changed its user is not, and cannot open what is in `/proc/self`."""
    prctl(_SET_DUMPABLE, 1)


def hide() -> None:
    """Let no process of the same user look into this one."""
    prctl(_SET_DUMPABLE, 0)


def set_limits(*, alone: bool, file_bytes: int) -> None:
    """For each process. `alone`: no process outside of the box is of its user."""
    _lower(resource.RLIMIT_CORE, 0)
    _lower(resource.RLIMIT_NOFILE, OPEN_FILES)
    _lower(resource.RLIMIT_FSIZE, file_bytes)
    if alone:
        _lower(resource.RLIMIT_NPROC, PROCESSES)


def _lower(what: int, most: int) -> None:
    soft, hard = resource.getrlimit(what)
    if hard == resource.RLIM_INFINITY or hard > most:
        hard = most
    if soft == resource.RLIM_INFINITY or soft > hard:
        soft = hard
    resource.setrlimit(what, (soft, hard))
