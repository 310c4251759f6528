"""From a fork of the keeper to the program: everything that it must not have is taken away before it begins."""

from __future__ import annotations

import os
import resource
import signal
from functools import cache
from typing import TYPE_CHECKING, Final, NoReturn

from capsule_kernels import system
from capsule_kernels.programs import confinement

if TYPE_CHECKING:
    from collections.abc import Iterable

    from capsule_kernels.programs import spec
    from capsule_kernels.programs.groups import RunGroup

_LIMITS: Final = {
    "cpu_seconds": resource.RLIMIT_CPU,
    "open_files": resource.RLIMIT_NOFILE,
    "file_bytes": resource.RLIMIT_FSIZE,
}
_DEFAULT_SIGNALS: Final = (signal.SIGPIPE, signal.SIGXFSZ)
"""Those that Python ignores, and a program would inherit that."""


def become(run: spec.Run, group: RunGroup, keeper: int, proc: int, tell: int) -> NoReturn:
    """Become the program; says over the pipe `tell` why it could not."""
    try:
        group.join()
        system.give_way(proc)
        system.die_with_parent(keeper)
        os.setsid()
        _stand(run)
        _limit(run.limits)
        confinement.enter(run, keeper)
        for number in _DEFAULT_SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        system.unblock_signals()
        if run.script:  # its interpreter opens it once more
            os.set_inheritable(run.given.program, True)  # noqa: FBT003 (the function takes it by position only)
        os.execve(run.given.program, run.argv, {"HOME": run.directory, "TMPDIR": run.directory, **run.env})  # noqa: S606 (that is what it is for)
    except BaseException as error:  # noqa: BLE001 (this process ends here, whatever it was)
        text = error.strerror if isinstance(error, OSError) else None
        os.write(tell, (text or str(error) or type(error).__name__).encode(errors="replace")[:4000])
    finally:
        os._exit(127)


def _stand(run: spec.Run) -> None:
    """Where it works, and its standard descriptors. All others close when the program begins."""
    os.chdir(run.directory)
    if run.cwd:
        root, *folders = run.cwd
        _walk(run.roots[int(root)].descriptor, map(str, folders))
    for wanted, descriptor in enumerate((run.given.stdin, run.given.stdout, run.given.stderr)):
        os.dup2(descriptor, wanted, inheritable=True)
    os.umask(0o077)


def _walk(root: int, folders: Iterable[str]) -> None:
    """Go there step by step. No step may be a link, so none leads out, also if names change meanwhile."""
    os.fchdir(root)
    for folder in folders:
        step = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        os.fchdir(step)
        os.close(step)


def _limit(limits: dict[str, int | None]) -> None:
    for name, what in _LIMITS.items():
        _lower(what, limits[name])
    _lower(resource.RLIMIT_CORE, 0)


def _lower(what: int, wanted: int | None) -> None:
    """Never above what there is: that would need rights, and is not what a limit is for."""
    if wanted is None:
        return
    _, hard = resource.getrlimit(what)
    value = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(what, (value, value))


@cache
def null() -> int:
    """A descriptor of the device that swallows everything."""
    return os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
