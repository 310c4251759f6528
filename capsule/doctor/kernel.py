"""What the kernel can do. Each is tried out, not looked up by version: containers take away what kernels have."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
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
_AUTOGROUP = Path("/proc/sys/kernel/sched_autogroup_enabled")
_NO_GROUPS = (
    "The sandbox does without: each process has limits, and a box counts what its processes hold together. Root has "
    "them with version 1. With version 2 the node must be in a group below one that was delegated to it and has no "
    "processes of its own: Delegate=yes and DelegateSubgroup=node of a unit of systemd (254) see to that."
)
_FOR_NAMESPACES = (
    "The sandbox's level `namespaces` needs them, unless the node runs as root. As root: sysctl "
    "user.max_user_namespaces=100000, and where there is one kernel.apparmor_restrict_unprivileged_userns=0."
)
_FOR_BOTH = "Both levels of the sandbox need it."
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
    """In a process of its own, as a zygote does: one is made of each kind, and joined."""
    command = [sys.executable, "-P", "-m", "capsule_kernels.sandbox.cgroups"]
    try:
        done = subprocess.run(command, timeout=_TRIAL_TIMEOUT, capture_output=True, check=True)
        answer = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        return Finding("cgroups", "info", f"they could not be tried: {error}", _NO_GROUPS)
    told = [f"{name} (version {version})" for name, version in answer["versions"].items()]
    missing = [f"not {name}: {why}" for name, why in answer["missing"].items()]
    message = "; ".join([", ".join(told) or "none can be made", *missing])
    return Finding("cgroups", "info" if missing else "ok", message, _NO_GROUPS if missing else "")


def _user_namespaces() -> Finding:
    """In a process of its own, because there is no way back."""
    try:
        code = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _UNSHARE], timeout=_TRIAL_TIMEOUT, capture_output=True, check=False
        ).returncode
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding("user_namespaces", "info", f"it could not be tried: {error}", _FOR_NAMESPACES)
    if code != 0:
        message = f"this user may not make them: {_reason(code)}"
        return Finding("user_namespaces", "info", message, _FOR_NAMESPACES)
    return Finding("user_namespaces", "ok", "this user may make them")


def _landlock() -> Finding:
    version = _libc.syscall(_LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(_LANDLOCK_VERSION))
    if version < 0:
        hint = f"{_FOR_BOTH} It takes Linux 5.13 or later, and `landlock` in `lsm=`."
        return Finding("landlock", "info", f"it is not there: {_reason(ctypes.get_errno())}", hint)
    return Finding("landlock", "ok", f"ABI {version}")


def _seccomp() -> Finding:
    with suppress(OSError):
        actions = Path("/proc/sys/kernel/seccomp/actions_avail").read_text(encoding="ascii").split()
        return Finding("seccomp", "ok", f"actions: {' '.join(actions)}")
    return Finding("seccomp", "info", "it is not there", _FOR_BOTH)


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
