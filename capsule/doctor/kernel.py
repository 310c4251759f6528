"""What the kernel can do. Each is tried out, not looked up by version: containers take away what kernels have."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from capsule.doctor.finding import Finding

_PR_GET_CHILD_SUBREAPER = 37
_LANDLOCK_CREATE_RULESET = 444
_LANDLOCK_VERSION = 1
_TRIAL_TIMEOUT = 10.0
_CGROUPS = Path("/sys/fs/cgroup")
_AUTOGROUP = Path("/proc/sys/kernel/sched_autogroup_enabled")
_NO_ISOLATION = "This version does not use it; isolation of sessions will need it."
_UNSHARE = """
import ctypes, sys
libc = ctypes.CDLL(None, use_errno=True)
sys.exit(0 if libc.unshare(0x10000000) == 0 else ctypes.get_errno())
"""

_libc = ctypes.CDLL(None, use_errno=True)


def examine() -> list[Finding]:
    """What is to be said of this kernel."""
    checks = (_pidfd, _memfd_sealing, _subreaper, _cgroups, _user_namespaces, _landlock, _seccomp, _autogroup)
    return [check() for check in checks]


def _pidfd() -> Finding:
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError as error:
        return _needed("pidfd", "pidfd_open", error.errno)
    return Finding("pidfd", "ok", "pidfd_open works")


def _memfd_sealing() -> Finding:
    try:
        memory = os.memfd_create("capsule-doctor", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            fcntl.fcntl(memory, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
        finally:
            os.close(memory)
    except OSError as error:
        return _needed("memfd_sealing", "sealing a memfd", error.errno)
    return Finding("memfd_sealing", "ok", "a memfd can be sealed")


def _subreaper() -> Finding:
    answer = ctypes.c_int()
    if _libc.prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(answer), 0, 0, 0) != 0:
        return _needed("subreaper", "PR_SET_CHILD_SUBREAPER", ctypes.get_errno())
    return Finding("subreaper", "ok", "orphans can be taken over")


def _cgroups() -> Finding:
    if (_CGROUPS / "cgroup.controllers").exists():
        mine = _own_group()
        may = mine is not None and os.access(mine, os.W_OK)
        text = "this user may make groups" if may else "this user may not make groups"
        return Finding("cgroups", "ok" if may else "info", f"version 2; {text}", "" if may else _NO_ISOLATION)
    found = "version 1" if any(_CGROUPS.glob("*/cgroup.procs")) else "none are mounted"
    return Finding("cgroups", "info", found, _NO_ISOLATION)


def _own_group() -> Path | None:
    with suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines():
            if line.startswith("0::"):
                return _CGROUPS / line.removeprefix("0::").lstrip("/")
    return None


def _user_namespaces() -> Finding:
    """In a process of its own, because there is no way back."""
    try:
        code = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _UNSHARE], timeout=_TRIAL_TIMEOUT, capture_output=True, check=False
        ).returncode
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding("user_namespaces", "info", f"it could not be tried: {error}", _NO_ISOLATION)
    if code != 0:
        message = f"this user may not make them: {_reason(code)}"
        return Finding("user_namespaces", "info", message, _NO_ISOLATION)
    return Finding("user_namespaces", "ok", "this user may make them")


def _landlock() -> Finding:
    version = _libc.syscall(_LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(_LANDLOCK_VERSION))
    if version < 0:
        return Finding("landlock", "info", f"it is not there: {_reason(ctypes.get_errno())}", _NO_ISOLATION)
    return Finding("landlock", "ok", f"ABI {version}")


def _seccomp() -> Finding:
    with suppress(OSError):
        actions = Path("/proc/sys/kernel/seccomp/actions_avail").read_text(encoding="ascii").split()
        return Finding("seccomp", "ok", f"actions: {' '.join(actions)}")
    return Finding("seccomp", "info", "it is not there", _NO_ISOLATION)


def _autogroup() -> Finding:
    with suppress(OSError):
        if _AUTOGROUP.read_text(encoding="ascii").strip() == "1":
            return Finding(
                "autogroup", "ok", "each session has an equal share of the processor, however many processes"
            )
    message = "the processor is shared out by processes: a session with many gets more than its neighbours"
    return Finding("autogroup", "info", message, "As root: sysctl kernel.sched_autogroup_enabled=1")


def _needed(code: str, what: str, number: int | None) -> Finding:
    hint = "Capsule needs Linux 5.4 or later, and a container that allows this call."
    return Finding(code, "error", f"{what} does not work: {_reason(number)}", hint)


def _reason(number: int | None) -> str:
    return f"{os.strerror(number)} ({errno.errorcode.get(number, number)})" if number else "no reason is given"
