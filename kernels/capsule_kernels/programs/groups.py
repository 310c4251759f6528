"""The control group of one run: made, bounded and removed by the launcher, and the program is in it from the first.

The keeper stays outside. In its mounts the groups can only be read, so what is written to them goes through
descriptors that the launcher has opened, and what says that memory has run out comes through others.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from capsule_kernels.sandbox import cgroups
from capsule_kernels.sandbox.groups import Group, Groups, number
from capsule_kernels.sandbox.limits import PROCESSES

if TYPE_CHECKING:
    from capsule_kernels.programs.spec import Run


CPUS: Final = "cpus"
"""What a grant asks for that only a group can bound."""


class RunGroup(Group):
    """That of one run; one without a sandbox, which nothing would keep in a group, has none."""

    _joins: tuple[int, ...] = ()
    _refused = -1

    def ready(self, memory_bytes: int | None, processes: int) -> None:
        """Make it and bound it, before the fork of the keeper. Raises OSError."""
        self.make()
        self.listen()
        # Threads count too, and of these the grant says nothing.
        self.limit(memory_bytes, processes + PROCESSES)
        for path in self._paths.values():
            if path != self._unified:
                self._joins += (os.open(f"{path}/tasks", os.O_WRONLY | os.O_CLOEXEC),)
        if self.bounds(cgroups.PIDS):
            self._refused = os.open(f"{self._paths[cgroups.PIDS]}/pids.events", os.O_RDONLY | os.O_CLOEXEC)

    def join(self) -> None:
        """In the program's process, as the first thing that it does."""
        for descriptor in self._joins:
            os.write(descriptor, b"0")

    @property
    def heard(self) -> list[int]:
        """The descriptors that the keeper needs."""
        return [*super().heard, *([self._refused] if self._refused >= 0 else [])]

    def exceeded(self) -> str:
        """What the system had no more of for it: "memory", "processes" (or threads), or "" if it had all."""
        if self.has_run_out():
            return "memory"
        # Not every kernel wakes those who wait for this one.
        full = self._refused >= 0 and number(self._refused, b"max") > 0
        return "processes" if full else ""

    def close(self) -> None:
        """Let go of what the keeper has now."""
        for descriptor in (*self._joins, *self.heard):
            os.close(descriptor)


class RunGroups:
    """Those of a launcher's runs. Only for a process with one thread."""

    def __init__(self) -> None:
        self._places = cgroups.discover().places
        self._left: list[Group] = []
        Groups(self._places).sweep()

    def make(self, run: Run, number: int) -> RunGroup:
        """One for this run. Raises OSError."""
        wanted = {cgroups.MEMORY, cgroups.PIDS, *([cgroups.CPU] if run.cpus is not None else ())}
        places = [place for place in self._places if place.controller in wanted and run.level != "none"]
        group = RunGroup(places, f"capsule-{cgroups.namespace()}-{os.getpid()}-{number}", run.cpus)
        try:
            group.ready(run.limits["memory_bytes"], run.limits["processes"] or 0)
        except BaseException:
            group.close()
            group.remove()
            raise
        return group

    def leave(self, group: Group) -> None:
        """Its run has ended, or never began; what is still in it ends soon, and then `clear` removes it."""
        self._left.append(group)

    def clear(self) -> None:
        """Remove what has been left, as far as it is empty."""
        self._left = [group for group in self._left if not group.remove()]


def lacking() -> str:
    """Why no group can bound the processor time of programs here, "" if one can."""
    return cgroups.discover([cgroups.CPU]).missing.get(cgroups.CPU, "")
