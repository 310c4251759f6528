"""The levels of the sandbox: what each is made of, in which order, and whether this machine can give it.

`none`: the code runs with all the rights of the node's user. `landlock`: rules of the kernel for files, signals and
system calls, which hold for the worker and all that it starts. `namespaces`: these, in a box that has processes,
network, mounts, IPC and host name of its own, and sees only what it needs. See docs/explanation/sandbox.md.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, Final

from capsule_kernels.sandbox import cgroups, landlock, limits, namespaces, seccomp, view
from capsule_kernels.sandbox.errors import SandboxError
from capsule_kernels.sandbox.groups import Groups

LEVELS: Final = ("none", "landlock", "namespaces")
"""From the weakest to the strongest."""
SCRATCH_BYTES: Final = 2**30


class Sandbox:
    """That of an environment: made by its zygote when all is imported, entered by each worker when it is wired.

    `options` are the environment's `level`, `scratch_bytes`, `readable`, `uid`, `cgroups` and `cpus`. Raises
    SandboxError.
    """

    def __init__(self, options: dict[str, Any]) -> None:
        self.level = str(options.get("level", "none"))
        self._size = int(options.get("scratch_bytes") or SCRATCH_BYTES)
        self._uid: int | None = options.get("uid")
        self._box = 0
        self.groups = Groups(())
        if self.level == "none":
            _refuse_groups(options)
            return
        if self.level not in LEVELS:
            raise SandboxError(f"there is no level {self.level!r}")
        same_user = os.geteuid() != 0 or self._uid == 0
        check(self.level, owner=same_user)
        self._filter = seccomp.program(plain_view=self.level == "landlock", same_user=same_user)
        self._readable = view.needed(options.get("readable") or ())
        self.groups = _groups(str(options.get("cgroups") or "auto"), options.get("cpus"))
        if self.level == "namespaces":
            _refuse_threads("what the environment imports has started {} threads outside of Python", _THREADS_HINT)
            self._view = namespaces.View(self._readable, view.DEVICES, self._size)

    @property
    def max_processes(self) -> int | None:
        """How many processes a box lets there be if its session does not say; None where the system counts them."""
        return limits.PROCESSES if self.level != "none" and not self._alone() else None

    @property
    def descriptors(self) -> list[int]:
        """What a worker keeps of its zygote's until it has entered."""
        return self._view.descriptors if self.level == "namespaces" else []

    def fork(self) -> int:
        """The fork of a box; in the child 0. Raises SandboxError, OSError."""
        if self.level != "namespaces":
            return os.fork()
        flags = namespaces.ALL | (namespaces.NEWUSER if os.geteuid() else 0)
        user, group = os.geteuid(), os.getegid()
        pid = namespaces.clone(flags)
        if pid == 0 and user != 0:
            namespaces.keep_identity(user, group)
        return pid

    def hand_on(self) -> None:
        """In a worker, before it runs another program, which is to enter in its place: that gets what it takes."""
        for descriptor in self.descriptors:
            os.set_inheritable(descriptor, True)  # noqa: FBT003 (the function takes it by position only)
        if self.level == "namespaces" and os.geteuid() != 0:
            limits.keep_capabilities()

    def settle(self) -> None:
        """In the box, before it forks its worker."""
        if self.level == "none":
            return
        self._box = int(os.readlink("/proc/self"))  # noqa: PTH115  # its number outside: /proc is still the zygote's
        if self.level == "namespaces":
            namespaces.own_mounts()
        limits.hide()

    def enter(self, directory: str) -> int:
        """In the worker, while it is single-threaded: from here on the code may be anybody's.

        Gives a descriptor of the scratch where that cannot be reached by its path, else -1. Raises SandboxError,
        OSError.
        """
        if self.level == "none":
            return -1
        _refuse_threads(
            "the interpreter has {} threads before it has imported any module of the environment",
            "Find what starts them: sitecustomize, or a file `.pth` of its packages.",
        )
        user, group = self._identity()
        own: tuple[str, ...]
        shared: tuple[str, ...] = ()
        scratch = -1
        if self.level == "namespaces":
            scratch = self._view.build(directory, user, group)
            own = (directory, view.TEMPORARY, view.SHARED_MEMORY)
        else:
            _open_up(directory, user, group)
            own = tuple(f"{directory}/{name}" for name in namespaces.SCRATCH)
            shared = (view.SHARED_MEMORY,)
        limits.set_limits(alone=self._alone(), file_bytes=self._size)
        limits.bound_capabilities()
        if user != os.geteuid():
            limits.become(user, group)
        limits.drop_capabilities()
        if self.level == "landlock":
            _check_way(directory)
        limits.stay_visible()
        self._restrict(own, shared)
        seccomp.install(self._filter)
        _point_at(directory)
        return scratch

    def _identity(self) -> tuple[int, int]:
        if os.geteuid() != 0:
            return os.geteuid(), os.getegid()
        user = limits.FIRST_USER + self._box if self._uid is None else self._uid
        return user, user

    def _alone(self) -> bool:
        """Whether the system counts the processes of the user, for this box alone; those of root it never counts."""
        root = os.geteuid() == 0
        return not (root and self._uid == 0) and (self.level == "namespaces" or (root and self._uid is None))

    def _restrict(self, own: tuple[str, ...], shared: tuple[str, ...]) -> None:
        rules = landlock.Ruleset()
        # In namespaces the root directory has nothing in it but what may be read.
        rules.read(("/",) if self.level == "namespaces" else (*self._readable, "/proc"))
        rules.use(view.DEVICES)
        rules.write(own)
        rules.share(shared)
        rules.restrict()


def _refuse_groups(options: dict[str, Any]) -> None:
    """Whoever is held by nothing else would leave them."""
    for name, value in {"cpus": None, "cgroups": "required"}.items():
        asked = options.get(name)
        if asked is not None and value in {None, asked}:
            raise SandboxError(
                f"{name}={asked!r} bounds nothing without a sandbox",
                'Set sandbox = "landlock" or "namespaces" beside it, or leave it out.',
            )


def _groups(wanted: str, cpus: float | None) -> Groups:
    """The control groups that there are, or else are refused. To join one for the processor takes 3 ms."""
    if wanted == "off" and cpus is None:
        return Groups(())
    found = cgroups.discover((cgroups.MEMORY, cgroups.PIDS, *([cgroups.CPU] if cpus is not None else ())))
    needed = {cgroups.MEMORY, cgroups.PIDS} if wanted == "required" else set()
    needed |= {cgroups.CPU} if cpus is not None else set()
    for controller in sorted(needed & found.missing.keys()):
        raise SandboxError(
            f"no control group for {controller} can be had: {found.missing[controller]}",
            "`capsule doctor` tells which can be had, and how; or leave out `cpus` and `cgroups`.",
        )
    places = [place for place in found.places if wanted != "off" or place.controller == cgroups.CPU]
    return Groups(places, cpus)


_THREADS_HINT: Final = (
    "Namespaces need none. Most libraries have a variable for that, as OPENBLAS_NUM_THREADS; set it in `env`. Or set "
    'start_method = "spawn": each worker then imports its modules itself.'
)


def _refuse_threads(message: str, hint: str) -> None:
    """Where a box is cloned past the C library, which can then not unlock what another thread has locked; or where the
    rules of the kernel are about to hold for the calling thread, and for no other.
    """
    threads = len(os.listdir("/proc/self/task"))  # noqa: PTH208
    if threads > 1:
        raise SandboxError(message.format(threads - 1), hint)


def check(level: str, *, owner: bool) -> None:
    """Raise SandboxError if this kernel cannot give the level. `owner`: the code runs as the owner of other things."""
    seccomp.program()
    version = landlock.version()
    if not version:
        raise SandboxError("there is no Landlock", "It needs Linux 5.13 or later, and `landlock` in `lsm=`.")
    if level == "landlock" and owner:
        if version < landlock.SCOPE_VERSION:
            raise SandboxError(
                f"Landlock ABI {version} does not keep code from ending other processes of its own user",
                "It needs Linux 6.12 or later; or run the node as root, or use the level `namespaces`.",
            )
    elif level == "landlock" and version < landlock.TRUNCATE_VERSION:
        raise SandboxError(
            f"Landlock ABI {version} does not keep code from shortening files",
            "It needs Linux 6.2 or later, or the level `namespaces`.",
        )


def _open_up(directory: str, user: int, group: int) -> None:
    """Let the worker's user into its folders, and nobody else."""
    namespaces.make_folders(directory, namespaces.SCRATCH, user, group)
    if user != os.geteuid():
        os.chown(directory, -1, group)
        os.chmod(directory, 0o710)  # noqa: PTH101, S103


def _check_way(directory: str) -> None:
    """Whether the user as whom the code runs can go to its folders. Raises SandboxError."""
    if os.access(f"{directory}/{namespaces.SCRATCH[0]}", os.W_OK | os.X_OK):
        return
    path = Path(directory, namespaces.SCRATCH[0])
    closed = next((one for one in (*reversed(path.parents), path) if not os.access(one, os.X_OK)), path)
    raise SandboxError(
        f"user {os.getuid()}, as whom the code runs, may not enter {closed}, in which its own directory is",
        f"Let all users through it (chmod o+x {closed}); or set `directory` to one that they can enter, or use the "
        "level `namespaces`, or set `uid = 0`, and the code runs as root without its powers.",
    )


def _point_at(directory: str) -> None:
    """Where programs put what they need meanwhile, and what they remember."""
    os.environ["TMPDIR"] = f"{directory}/tmp"  # noqa: S108
    os.environ["HOME"] = f"{directory}/home"
    # These may have looked already, in the zygote.
    if "tempfile" in sys.modules:
        sys.modules["tempfile"].__dict__["tempdir"] = None
    matplotlib = sys.modules.get("matplotlib")
    for name in ("get_configdir", "get_cachedir"):
        remembers = getattr(matplotlib, name, None)
        if remembers is not None:
            setattr(matplotlib, name, getattr(remembers, "__wrapped__", remembers))


def describe(error: BaseException) -> dict[str, str]:
    """What went wrong, for the node."""
    if isinstance(error, SandboxError):
        return {"message": error.message, "hint": error.hint}
    return {"message": f"{type(error).__name__}: {error}", "hint": ""}
