"""The few Linux calls that Python does not offer, and what /proc tells of a process tree."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator

_TICKS = os.sysconf("SC_CLK_TCK")
_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36
_SIGSET_SIZE = 128
_HIGHEST = -20
_GIVES_WAY = 300
"""Thousandths of all memory there is, by which a worker counts as larger: as browsers do with their pages."""
_OOM_MOST = 1000

_libc = ctypes.CDLL(None, use_errno=True)
# Not the functions of the signal module: they make a set of 64 enum members at each call, just after a fork, when every
# object touched is a page copied.
_NO_SIGNALS = ctypes.create_string_buffer(_SIGSET_SIZE)
_ALL_SIGNALS = ctypes.create_string_buffer(_SIGSET_SIZE)
_libc.sigfillset(_ALL_SIGNALS)


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when `parent` ends, which must be single-threaded.

    The signal comes when the *thread* that forked ends, hence the condition. A parent that was gone before the request
    would never be noticed, hence the look at who the parent is now.
    """
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent ends, so that none can leave the tree."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def set_name(name: str) -> None:
    """Say in `ps` and `top` what this process is; at most 15 characters count."""
    _prctl(_PR_SET_NAME, ctypes.c_char_p(name.encode()))


def give_way(proc: int | None = None) -> None:
    """Be killed before others when no memory is left, and so be all that this process will start.

    `proc` is a descriptor of /proc as it was before this process could only read it.

    The system kills the largest process, and then may not see that one any more while its memory is still being freed:
    its main thread has ended, and the last of its threads is at it. Then it kills the next one.
    """
    with suppress(OSError):
        path = "/proc/self/oom_score_adj" if proc is None else "self/oom_score_adj"
        adjustment = os.open(path, os.O_RDWR | os.O_CLOEXEC, dir_fd=proc)
        try:
            own = int(os.read(adjustment, 16))
            os.write(adjustment, b"%d" % min(_OOM_MOST, own + _GIVES_WAY))
        finally:
            os.close(adjustment)


def go_first() -> None:
    """Get the processor before others when there is something to do; not everybody may, and then it stays as it is.

    No real-time class: a process in one that meets in /proc what another one is taking down spins, and lets nobody by.
    """
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, _HIGHEST)
    # Where the processor is shared out by sessions, that counts within this process's own only.
    with suppress(OSError):
        autogroup = os.open(
            "/proc/self/autogroup", os.O_WRONLY | os.O_CLOEXEC
        )  # as `children`: a twentieth of the time
        try:
            os.write(autogroup, b"%d" % _HIGHEST)
        finally:
            os.close(autogroup)


def block_signals() -> None:
    """Let no signal interrupt or end this process, except those that cannot be blocked."""
    _libc.pthread_sigmask(signal.SIG_SETMASK, _ALL_SIGNALS, None)


def unblock_signals() -> None:
    """Let all signals in."""
    _libc.pthread_sigmask(signal.SIG_SETMASK, _NO_SIGNALS, None)


@contextmanager
def signals_blocked() -> Iterator[None]:
    """Block all signals for the calling thread meanwhile; a thread that it starts inherits that."""
    before = ctypes.create_string_buffer(_SIGSET_SIZE)
    _libc.pthread_sigmask(signal.SIG_SETMASK, _ALL_SIGNALS, before)
    try:
        yield
    finally:
        _libc.pthread_sigmask(signal.SIG_SETMASK, before, None)


def child_signals() -> int:
    """A descriptor that is readable when a child has ended or stopped; blocks the signal itself."""
    wanted = ctypes.create_string_buffer(_SIGSET_SIZE)
    _libc.sigaddset(wanted, int(signal.SIGCHLD))
    _libc.pthread_sigmask(signal.SIG_BLOCK, wanted, None)
    descriptor = int(_libc.signalfd(-1, wanted, os.O_CLOEXEC | os.O_NONBLOCK))
    if descriptor < 0:
        raise _last_error()
    return descriptor


def clear(signals: int) -> None:
    """Take what waits in a descriptor of `child_signals`."""
    with suppress(BlockingIOError):
        os.read(signals, 4096)


def children(pid: int) -> list[int]:
    """The children of a process, by whichever of its threads; none if it is gone."""
    # Without pathlib, in a quarter of the time: who kills a tree that grows must find faster than it forks.
    found: list[int] = []
    with suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208 (see above)
            found += _children_of_thread(f"/proc/{pid}/task/{thread}/children")
    return found


def _children_of_thread(path: str) -> list[int]:
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123 (see `children`)
            return [int(pid) for pid in file.read().split()]
    except OSError:
        return []


def walk(pid: int, known: Container[int] = ()) -> Iterator[int]:
    """All processes below `pid`, parents before their children; those that are known, and what is below them, are not.

    The children of a process are looked up after it was given. So who kills each one at once finds all of its children:
    a process that is being killed makes no more of them.
    """
    found = children(pid)
    for child in found:  # grows while it is walked
        if child not in known:
            yield child
            found += children(child)


def descendants(pid: int) -> list[int]:
    """The same, all at once."""
    return list(walk(pid))


def now_ticks() -> int:
    """Clock ticks since the system booted, rounded down."""
    return int(time.clock_gettime(time.CLOCK_BOOTTIME) * _TICKS)


def started(pid: int) -> int:
    """When a process began, in clock ticks since the system booted; 0 if it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return 0
    return int(stat[stat.rindex(b")") + 2 :].split()[19])


def begun_since(pids: list[int], ticks: int) -> list[int]:
    """Those that began at this time or later."""
    return [pid for pid in pids if started(pid) >= ticks]


def signal_all(pids: Iterable[int], number: signal.Signals) -> None:
    """Send a signal to each process that is still there."""
    for pid in pids:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def _prctl(option: int, argument: int | ctypes.c_char_p) -> None:
    value = ctypes.c_ulong(argument) if isinstance(argument, int) else argument
    if _libc.prctl(option, value, ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0)) != 0:
        raise _last_error()


def _last_error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
