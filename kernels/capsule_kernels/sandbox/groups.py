"""The control group of a box: what its worker and all that this starts have together, bounded by the system.

The worker joins it as the first thing of its life, and the box, which stays outside, gives it the limits and removes
it. Nothing of the session can write to it: at `landlock` no rule allows that, at `namespaces` it is not there, and
where the node is root it is root's. What no process maps counts too: files in memory, and what waits in sockets.
"""

from __future__ import annotations

import errno
import os
import re
import select
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from capsule_kernels.sandbox.cgroups import CPU, MEMORY, PIDS, Place, candidates, namespace, put
from capsule_kernels.sandbox.limits import PROCESSES
from capsule_kernels.sandbox.namespaces import fork_into

if TYPE_CHECKING:
    from collections.abc import Sequence

_NAME = re.compile(r"capsule-([0-9]+)-([0-9]+)-[0-9a-z]+")
"""The namespace of the process id, the process id of the zygote, and a number."""
_PERIOD: Final = 100_000
"""Microseconds in which the processor time is counted."""
_NEARLY: Final = 2**20
"""Memory is counted in advance by each processor: so many bytes below its limit a group may have none left."""
_REHEARSED: Final = 2**32
"""What a rehearsal adds to the number of alarms, which does not get there otherwise."""
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Group:
    """That of one box. Without places there is none, and nothing is bounded. Raises OSError."""

    def __init__(self, places: Sequence[Place] = (), name: str = "", cpus: float | None = None) -> None:
        self._paths = {place.controller: f"{place.folder}/{name}" for place in places}
        self._unified = next((f"{place.folder}/{name}" for place in places if place.version != 1), "")
        self._cpus = cpus
        self._alarm = -1
        self._most: int | None = None  # bytes of memory, if it has a limit
        self._usage = self._highest = -1  # where version 1 tells how much it has, and has had at most

    def bounds(self, controller: str) -> bool:
        """Whether the system bounds this."""
        return controller in self._paths

    def make(self) -> None:
        """Make it, with the limits that every box has: so many processes and threads, and so much of the processors."""
        for path in set(self._paths.values()):
            os.mkdir(path)  # noqa: PTH102
        if PIDS in self._paths:
            put(f"{self._paths[PIDS]}/pids.max", str(PROCESSES))
        if CPU in self._paths and self._cpus is not None:
            self._limit_cpu(max(1000, round(self._cpus * _PERIOD)))

    def fork(self) -> int:
        """A fork whose child is in it, once that has called `join`; in the child 0."""
        if not self._unified:
            return os.fork()
        folder = os.open(self._unified, _FOLDER)
        try:
            return fork_into(folder)
        finally:
            os.close(folder)

    def join(self) -> None:
        """In the child, while it has one thread."""
        for path in self._paths.values():
            if path != self._unified:
                put(f"{path}/tasks", "0")

    def limit(self, memory_bytes: int | None, max_processes: int | None) -> bool:
        """Bound what it has by now and will have; False if it has more memory already."""
        if PIDS in self._paths and max_processes is not None:
            put(f"{self._paths[PIDS]}/pids.max", str(max(PROCESSES, max_processes)))
        if MEMORY not in self._paths or memory_bytes is None:
            return True
        try:
            self._limit_memory(memory_bytes)
            self._rehearse()
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            return False
        return True

    def watch(self, poll: select.poll) -> int:
        """Have the poll tell when memory runs out; the descriptor for which it does, -1 if there is none."""
        self.listen()
        if self._alarm >= 0:
            unified = self._paths[MEMORY] == self._unified
            poll.register(self._alarm, select.POLLPRI if unified else select.POLLIN)
        return self._alarm

    def listen(self) -> None:
        """Have the system tell when memory runs out, to whoever watches."""
        if MEMORY not in self._paths or self._alarm >= 0:
            return
        path = self._paths[MEMORY]
        if path == self._unified:
            self._alarm = os.open(f"{path}/memory.events", os.O_RDONLY | os.O_CLOEXEC)
            os.pread(self._alarm, 4096, 0)
            return
        self._alarm = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        control = os.open(f"{path}/memory.oom_control", os.O_RDONLY | os.O_CLOEXEC)
        try:
            put(f"{path}/cgroup.event_control", f"{self._alarm} {control}")
        finally:
            os.close(control)

    @property
    def heard(self) -> list[int]:
        """The descriptors that whoever watches needs."""
        return [descriptor for descriptor in (self._alarm, self._usage, self._highest) if descriptor >= 0]

    def has_run_out(self) -> bool:
        """Whether there was no memory left within its own limit; the poll is quiet then until there is none again."""
        if self._alarm < 0:
            return False
        path = self._paths[MEMORY]
        if path == self._unified:
            return number(self._alarm, b"oom") > 0 and self._most is not None
        alarms = 0
        with suppress(BlockingIOError):
            alarms = os.eventfd_read(self._alarm) % _REHEARSED
        if self._most is None:  # those above told it
            return False
        # It is told before anything is killed, and to all below a group that has none left. In this order: what is
        # freed was counted as killed before. What this needs of memory itself was had by `_rehearse`. Without an alarm
        # a usage says nothing: cached files fill all that there is, and the system takes them away before it tells.
        nearly = self._most - _NEARLY
        if number(self._usage) > nearly and alarms:
            return True
        return number(self._highest) > nearly and number(f"{path}/memory.oom_control", b"oom_kill") > 0

    def remove(self) -> bool:
        """Remove it, if no process is in it any more; whether it is gone."""
        gone = True
        for path in set(self._paths.values()):
            try:
                os.rmdir(path)  # noqa: PTH106
            except FileNotFoundError:
                continue
            except OSError:
                gone = False
        return gone

    def _limit_memory(self, size: int) -> None:
        path = self._paths[MEMORY]
        self._most = size
        if path == self._unified:
            put(f"{path}/memory.oom.group", "1")
            with suppress(FileNotFoundError):  # where swap is not counted
                put(f"{path}/memory.swap.max", "0")  # first, else what is too much goes there
            put(f"{path}/memory.max", str(size))
            return
        put(f"{path}/memory.limit_in_bytes", str(size))
        if self._usage < 0:
            self._usage = os.open(f"{path}/memory.usage_in_bytes", os.O_RDONLY | os.O_CLOEXEC)
            self._highest = os.open(f"{path}/memory.max_usage_in_bytes", os.O_RDONLY | os.O_CLOEXEC)
        with suppress(FileNotFoundError):  # as above
            put(f"{path}/memory.memsw.limit_in_bytes", str(size))

    def _rehearse(self) -> None:
        """Have what follows an alarm happen once, while there is memory: a page that a box changes first is a copy.

        A box that needs memory of the node's group when that has none left has the system kill once more, and that may
        be the node (see `system.give_way`).
        """
        if not self._unified and self._alarm >= 0:
            os.eventfd_write(self._alarm, _REHEARSED)

    def _limit_cpu(self, quota: int) -> None:
        path = self._paths[CPU]
        if path == self._unified:
            put(f"{path}/cpu.max", f"{quota} {_PERIOD}")
        else:
            put(f"{path}/cpu.cfs_period_us", str(_PERIOD))
            put(f"{path}/cpu.cfs_quota_us", str(quota))


class Groups:
    """Those of a zygote's boxes. One is made ahead of each fork, so that this takes no time of it."""

    def __init__(self, places: Sequence[Place], cpus: float | None = None) -> None:
        self._places = places
        self._cpus = cpus
        self._spare: Group | None = None
        self._made = 0
        self._left: list[Group] = []

    @property
    def folders(self) -> list[str]:
        """Where they are made."""
        return sorted({place.folder for place in self._places})

    def sweep(self) -> None:
        """Remove those of zygotes that are gone, and that have no process in them. Never fails."""
        here = namespace()
        for folder in candidates():
            for path in Path(folder).glob("capsule-*"):
                name = _NAME.fullmatch(path.name)
                # The process ids of another namespace say nothing here.
                if name is not None and int(name[1]) == here and not Path(f"/proc/{name[2]}").exists():
                    with suppress(OSError):
                        path.rmdir()

    def prepare(self) -> None:
        """Make one for the next box. Where that fails the next `take` says why."""
        if self._spare is None and self._places:
            with suppress(OSError):
                self._spare = self._make()

    def take(self) -> Group:
        """One for a box. Raises OSError."""
        group, self._spare = self._spare, None
        return group if group is not None else self._make()

    def leave(self, group: Group) -> None:
        """Its box has ended. If that was killed, what was in it ends soon, and then `clear` removes it."""
        self._left.append(group)

    def clear(self) -> None:
        """Remove what has been left, as far as it is empty."""
        self._left = [group for group in self._left if not group.remove()]

    def close(self) -> None:
        """Remove what no box has."""
        self.clear()
        if self._spare is not None:
            self._spare.remove()
            self._spare = None

    def _make(self) -> Group:
        self._made += 1
        group = Group(self._places, f"capsule-{namespace()}-{os.getpid()}-{self._made}", self._cpus)
        try:
            group.make()
        except BaseException:
            group.remove()
            raise
        return group


def number(file: int | str, name: bytes = b"") -> int:
    """What a file that is open, or the one at this path, says under this name; 0 if the group is gone.

    Bytes, for what decodes others may have to be read from the disk first.
    """
    try:
        fields = (os.pread(file, 4096, 0) if isinstance(file, int) else Path(file).read_bytes()).split()
    except OSError:
        return 0
    return int(fields[fields.index(name) + 1 if name else 0])
