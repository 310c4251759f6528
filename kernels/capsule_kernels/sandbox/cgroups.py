"""Where control groups for boxes can be made: looked up, and then tried by making one and having a process join it.

They are made below the group that this process is in, so that a box stays within the limits of whoever runs the node.
With version 1 each controller has a hierarchy of its own. With version 2 a group that has processes can have no groups
with controllers below it: there the groups are made beside this process's own one, if what is above was delegated. Only
the group of the whole machine may have both.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from capsule_kernels.sandbox.errors import SandboxError
from capsule_kernels.sandbox.namespaces import fork_into

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MEMORY, PIDS, CPU = CONTROLLERS = ("memory", "pids", "cpu")
_LIMIT: Final = {1: {MEMORY: "memory.limit_in_bytes", PIDS: "pids.max", CPU: "cpu.cfs_quota_us"}}
_LIMIT[2] = {MEMORY: "memory.max", PIDS: "pids.max", CPU: "cpu.max"}
_JOIN: Final = "tasks"
"""Of version 1: a thread that writes itself there waits for nobody; `cgroup.procs` takes 6 to 13 ms."""
_ENABLED: Final = "cgroup.subtree_control"


@dataclass(frozen=True, slots=True)
class Place:
    """A folder in which groups of one controller are made, and which version of control groups it is of."""

    controller: str
    folder: str
    version: int


@dataclass(frozen=True, slots=True)
class Found:
    """What can be had here, and for each other controller why it cannot."""

    places: tuple[Place, ...]
    missing: dict[str, str]


def discover(wanted: Iterable[str] = CONTROLLERS) -> Found:
    """Try each of these controllers. Only for a process with one thread."""
    places, missing = [], {}
    for controller in wanted:
        try:
            place = _look_up(controller)
            if place.version != 1:
                _enable(place)
            _try_out(place)
        except SandboxError as error:
            missing[controller] = error.message
        else:
            places.append(place)
    return Found(tuple(places), missing)


def candidates() -> set[str]:
    """The folders in which groups of any controller may have been made."""
    found = set()
    for controller in CONTROLLERS:
        with suppress(SandboxError, OSError):
            found.add(_look_up(controller).folder)
    return found


def put(path: str, text: str) -> None:
    """Write to a file that there is. Raises OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def namespace() -> int:
    """Of which process ids those in names of groups are."""
    return os.stat("/proc/self/ns/pid").st_ino  # noqa: PTH116


def _look_up(controller: str) -> Place:
    for version, mounted, root in _mounts(controller):
        own = _own_group(controller if version == 1 else "")
        if own is not None and (root in {"/", own} or own.startswith(f"{root}/")):
            below = own if root == "/" else own[len(root) :]
            folder = f"{mounted}{below}".rstrip("/")
            return Place(controller, folder if version == 1 else _delegated(folder, mounted), version)
    raise SandboxError("no hierarchy that has this controller and the node's own group is mounted")


def _mounts(controller: str) -> Iterator[tuple[int, str, str]]:
    """Version, folder and the group that is mounted there, of each hierarchy that may have the controller."""
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        before, _, after = line.partition(" - ")
        root, mounted = before.split()[3:5]
        kind, _, options = after.split(maxsplit=2)
        if kind == "cgroup" and controller in options.split(","):
            yield 1, mounted, root
        elif kind == "cgroup2" and controller in _words(f"{mounted}/cgroup.controllers"):
            yield 2, mounted, root


def _own_group(controller: str) -> str | None:
    for line in Path("/proc/self/cgroup").read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            return path
    return None


def _delegated(own: str, mounted: str) -> str:
    """Beside the own group of version 2, or below it where it is the topmost that there is here."""
    above = own if own == mounted else os.path.dirname(own)  # noqa: PTH120
    if above != mounted and not _is_delegated(above):
        raise SandboxError(f"the group {above} was not delegated to the node")
    return above


def _enable(place: Place) -> None:
    """Have those below it have the controller.

    Not where processes are: the kernel would do it for all but memory, and then nobody could join any group below.
    """
    own, controller = place.folder, place.controller
    if controller not in _words(f"{own}/cgroup.controllers"):
        raise SandboxError(f"the group {own} was not given it by those above")
    # That of the whole machine has no type.
    if _words(f"{own}/cgroup.type") and _words(f"{own}/cgroup.procs"):
        raise SandboxError(f"the group {own} has processes of its own, and so can have no others below it")
    if controller not in _words(f"{own}/{_ENABLED}"):
        try:
            put(f"{own}/{_ENABLED}", f"+{controller}")
        except OSError as error:
            raise SandboxError(f"it cannot be enabled in {own}: {error.strerror}") from error


def _is_delegated(folder: str) -> bool:
    """Systemd marks what it delegates. Else it is the topmost folder that belongs to this ordinary user."""
    for name in ("user.delegate", "trusted.delegate"):
        with suppress(OSError):
            if os.getxattr(folder, name) == b"1":
                return True
    with suppress(OSError):
        owners = [os.stat(path).st_uid for path in (folder, f"{folder}/..")]  # noqa: PTH116
        return owners[0] == os.geteuid() != owners[1]
    return False


def _words(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8").split()
    except OSError:
        return []


def _try_out(place: Place) -> None:
    """Make a group and have a process join it. Another node's sweep takes it only when this process is gone."""
    path = f"{place.folder}/capsule-{namespace()}-{os.getpid()}-trial"
    try:
        os.mkdir(path)  # noqa: PTH102
    except OSError as error:
        raise SandboxError(f"no group can be made in {place.folder}: {error.strerror}") from error
    try:
        limit = f"{path}/{_LIMIT[place.version][place.controller]}"
        if not os.access(limit, os.W_OK):
            raise SandboxError(f"{limit} cannot be written")
        pid = os.fork() if place.version == 1 else _fork_into(path)
        if pid == 0:
            _join_and_leave(f"{path}/{_JOIN}" if place.version == 1 else "")
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if status != 0:
            raise SandboxError(f"no process can join a group in {place.folder}: {os.strerror(status)}")
    except OSError as error:
        raise SandboxError(f"no process could be made in one to try it: {error.strerror}") from error
    finally:
        with suppress(OSError):
            os.rmdir(path)  # noqa: PTH106


def _fork_into(path: str) -> int:
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return fork_into(folder)
    finally:
        os.close(folder)


def _join_and_leave(path: str) -> None:
    status = 255
    try:
        if path:
            put(path, "0")
        status = 0
    except OSError as error:
        status = error.errno or status
    finally:
        os._exit(status)


def main() -> None:
    """For `capsule doctor`, in a process of its own: the answer on stdout."""
    found = discover()
    versions = {place.controller: place.version for place in found.places}
    sys.stdout.write(json.dumps({"versions": versions, "missing": found.missing}))


if __name__ == "__main__":
    main()
