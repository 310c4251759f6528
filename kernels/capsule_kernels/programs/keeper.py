"""The keeper of one run: it forks the program, waits, and leaves nothing of it behind.

The run is over when the program ends, when the node lets go of the lease, or when the tree is over its bounds. Then all
that the program has started is killed, whether or not it has left its process group or session: the keeper is the
subreaper of all of it, or the first process of its namespace. If the keeper is killed itself, the kernel kills the
program, and the launcher what comes to it. It does not need the launcher: if that is killed, the run goes on.
"""

from __future__ import annotations

import os
import select
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NoReturn

from capsule_kernels import descriptors, system
from capsule_kernels.bounds import Bounds
from capsule_kernels.box import remove_tree
from capsule_kernels.offspring import Offspring
from capsule_kernels.programs import confinement, program, spec
from capsule_kernels.sandbox.cgroups import MEMORY
from capsule_kernels.sandbox.errors import SandboxError

if TYPE_CHECKING:
    from resource import struct_rusage

    from capsule_kernels.programs.groups import RunGroup

_LEFTOVER_INTERVAL_MS: Final = 20
_AT_ONCE: Final = 2**20
_STREAMS: Final = ("stdout", "stderr")


def main(run: spec.Run, group: RunGroup, proc: int) -> NoReturn:
    """Keep a run, in the process that the launcher has just forked for it; `proc` is the launcher's /proc."""
    try:
        os.setsid()
        system.set_name("capsule-keeper")
        system.adopt_orphans()
        system.block_signals()
        lease = socket.socket(fileno=run.given.lease)
        try:
            _keep(confinement.settle(run), group, proc, lease)
        except (OSError, SandboxError) as error:
            descriptors.send(lease, {"error": str(error)})
    finally:
        os._exit(0)


def _keep(run: spec.Run, group: RunGroup, proc: int, lease: socket.socket) -> None:
    told, tell = os.pipe2(os.O_CLOEXEC)
    keeper = os.getpid()
    pid = group.fork()
    if pid == 0:
        program.become(run, group, keeper, proc, tell)
    reads = (run.given.stdout_read, run.given.stderr_read)
    descriptors.close_all_but([run.given.lease, told, *reads, *group.heard])
    failure = os.read(told, 4096)  # nothing, when the program runs
    os.close(told)
    memory_bytes = None if group.bounds(MEMORY) else run.limits["memory_bytes"]
    keeping = _Keeper(lease, pid, reads, Bounds(memory_bytes, run.limits["processes"]), group)
    if not failure:
        descriptors.send(lease, {"started": pid})
        system.go_first()
    keeping.run()
    remove(run.directory)
    descriptors.send(lease, {"error": failure.decode(errors="replace")} if failure else keeping.result)


def remove(directory: str) -> None:
    """Remove the directory of a run, which is empty more often than not."""
    try:
        os.rmdir(directory)  # noqa: PTH106 (in a tenth of the time)
    except FileNotFoundError:
        return
    except OSError:
        remove_tree(directory)


class _Keeper:
    """The life of one program and of what it starts."""

    def __init__(self, lease: socket.socket, pid: int, reads: tuple[int, int], bounds: Bounds, group: RunGroup) -> None:
        self._lease = lease
        self._tree = Offspring(pid)
        self._reads = reads
        self._bounds = bounds
        self._group = group
        self._dropped = [0, 0]
        self._dropping: set[int] = set()
        self.result: dict[str, Any] = {"exceeded": ""}
        self._signals = system.child_signals()
        self._poll = select.poll()
        self._poll.register(self._signals, select.POLLIN)
        self._poll.register(lease, select.POLLIN)
        self._alarm = group.watch(self._poll)

    def run(self) -> None:
        """Wait for the program's end, then for that of all it has left, then for the last of what is dropped."""
        self._reap()
        while self._tree.alive:
            self._wait(self._bounds.interval(busy=True))
            self._check_bounds()
        while not self._tree.childless:
            self._tree.kill()
            self._reap()
            if not self._tree.childless:
                self._wait(_LEFTOVER_INTERVAL_MS)
        for stream in sorted(self._dropping):
            self._drop(stream)
        self.result["dropped"] = self._dropped

    def _wait(self, timeout: int | None) -> None:
        ready = self._poll.poll(timeout)
        if not ready:
            self._tree.look_again()
        for descriptor, _ in ready:
            if descriptor == self._signals:
                system.clear(self._signals)
                self._reap()
            elif descriptor == self._lease.fileno():
                self._obey()
            elif descriptor == self._alarm:
                self._exceed(self._group.exceeded())
            else:
                self._drop(self._reads.index(descriptor))

    def _obey(self) -> None:
        message, given = descriptors.receive(self._lease)
        descriptors.close_all(given)
        if message is None:
            self._poll.unregister(self._lease)
            self._tree.kill_first()
        elif message.get("op") == "drop":
            stream = _STREAMS.index(message["stream"])
            self._dropping.add(stream)
            os.set_blocking(self._reads[stream], False)
            self._poll.register(self._reads[stream], select.POLLIN)

    def _drop(self, stream: int) -> None:
        """Throw away what the program writes, and count it, without looking at it."""
        descriptor = self._reads[stream]
        with suppress(BlockingIOError):
            while taken := os.splice(descriptor, program.null(), _AT_ONCE):
                self._dropped[stream] += taken
                if self._tree.alive:
                    return  # others wait, too
            self._dropping.discard(stream)
            self._poll.unregister(descriptor)

    def _reap(self) -> None:
        self._tree.reap(self._note_end)

    def _note_end(self, code: int, usage: struct_rusage) -> None:
        self.result |= {
            "exceeded": self.result["exceeded"] or self._group.exceeded(),  # its alarm may not have been heard yet
            "exit": code,
            "cpu_seconds": usage.ru_utime + usage.ru_stime,
            "max_rss_bytes": usage.ru_maxrss * 1024,
        }

    def _check_bounds(self) -> None:
        if self._tree.alive and not self.result["exceeded"]:
            self._exceed(self._group.exceeded() or self._bounds.exceeded(os.getpid()))

    def _exceed(self, bound: str) -> None:
        """End the run, if there is a bound that it is over, and it has not ended."""
        if bound and self._tree.alive and not self.result["exceeded"]:
            self.result["exceeded"] = bound
            self._tree.kill_first()
            self._tree.kill()
