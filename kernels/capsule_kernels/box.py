"""The box of one worker: a stub init that runs no user code, reaps, and leaves nothing behind.

The box forks the worker and then waits. Three things can happen: the node lets go of the lease (all is killed), the
worker ends (its leftovers are killed), or the node sends a command. Whatever happens, it ends with the same steps: kill
the tree, remove the directory, say so, exit. If the box itself is killed, the kernel kills the worker and hands deeper
descendants to the zygote, which kills them.

A node can say that the box may outlive it. Then a lease that closes without a word means that the node has died, and
the box waits a while for another one (see `heritage`), also if its worker ends meanwhile: who comes is told how.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

from capsule_kernels import descriptors, newborn, system
from capsule_kernels.bounds import Bounds
from capsule_kernels.heritage import Heritage
from capsule_kernels.offspring import Offspring
from capsule_kernels.sandbox.cgroups import MEMORY, PIDS
from capsule_protocol.page import INTERRUPTED, RUNNING, SINCE

if TYPE_CHECKING:
    from capsule_kernels.sandbox.groups import Group
    from capsule_kernels.sandbox.levels import Sandbox

# Each death of a child announces itself, so this only covers a child that /proc left out of a listing while it changed.
_LEFTOVER_INTERVAL_MS: Final = 50


def main(spec: dict[str, Any], given: descriptors.BoxDescriptors, worker: newborn.WorkerMain, lock: int) -> NoReturn:
    """Run a box in the process that the zygote has just forked for it; `lock` marks its directory as in use."""
    try:
        settle(spec["sandbox"])
    except OSError as error:
        _refuse(spec, given, error)
    run(spec, given, worker, lock)


def settle(sandbox: Sandbox) -> None:
    """Become a box, whoever will be its worker. Raises OSError."""
    os.setsid()
    system.adopt_orphans()
    system.block_signals()
    sandbox.settle()


def run(spec: dict[str, Any], given: descriptors.BoxDescriptors, worker: newborn.WorkerMain, lock: int) -> NoReturn:
    """Fork the worker and be its box; the process has settled."""
    system.set_name("capsule-box")
    keeper = os.getpid()
    try:
        pid = spec["group"].fork()
    except OSError as error:
        _refuse(spec, given, error)
    if pid == 0:
        newborn.become_worker(spec, given, worker, keeper)
    descriptors.close_all_but([given.lease, given.page, lock])
    _leave(spec, _Box(_lease(given), given.page, pid, spec).run())


def _lease(given: descriptors.BoxDescriptors) -> socket.socket:
    lease = socket.socket(fileno=given.lease)
    lease.settimeout(None)  # a module of the environment may have set another default
    return lease


def _refuse(spec: dict[str, Any], given: descriptors.BoxDescriptors, error: OSError) -> NoReturn:
    lease = _lease(given)
    descriptors.send(lease, {"error": {"name": type(error).__name__, "message": str(error)}})
    _leave(spec, lease)


class _Box:
    """The life of one worker, seen by its keeper."""

    def __init__(self, lease: socket.socket, page: int, worker: int, spec: dict[str, Any]) -> None:
        self._lease = lease
        self._page = page
        self._tree = Offspring(worker)
        self._directory: str = spec["dir"]
        self._heritage: Heritage | None = None
        self._orphaned = False
        self._status: dict[str, Any] = {}
        self._group: Group = spec["group"]
        self._most_processes: int | None = None if self._group.bounds(PIDS) else spec["sandbox"].max_processes
        self._bounds = Bounds(max_processes=self._most_processes)
        self._exceeded = ""
        self._expecting = False
        self._signals = system.child_signals()
        self._poll = select.poll()
        self._poll.register(self._signals, select.POLLIN)
        self._poll.register(lease, select.POLLIN)
        self._alarm = -1

    def run(self) -> socket.socket:
        """Wait for the worker's end and then for that of everything it left; returns the lease, to say good-bye."""
        pidfd = os.pidfd_open(self._tree.first)
        descriptors.send(self._lease, {"worker": self._tree.first}, [pidfd])
        os.close(pidfd)
        self._alarm = self._group.watch(self._poll)
        self._reap()
        while self._tree.alive or self._orphaned:
            self._wait(self._until_next_look())
            self._check_bounds()
            self._check_orphaned()
        while not self._tree.childless:
            self._tree.kill()
            self._reap()
            if not self._tree.childless:
                self._wait(_LEFTOVER_INTERVAL_MS)
        if self._heritage is not None:
            self._heritage.close()
        return self._lease

    def _until_next_look(self) -> int | None:
        """In milliseconds; None if there is nothing to look for."""
        look = self._bounds.interval(busy=self._expecting or self._number(RUNNING) != 0) if self._tree.alive else None
        if self._orphaned and self._heritage is not None:
            waits = self._heritage.milliseconds()
            if not (self._tree.alive or self._tree.childless):
                waits = min(waits, _LEFTOVER_INTERVAL_MS)
            return waits if look is None else min(look, waits)
        return look

    def _wait(self, timeout: float | None) -> None:
        ready = self._poll.poll(timeout)
        if not ready:
            self._expecting = False
            self._tree.look_again()
        for descriptor, _ in ready:
            if descriptor == self._signals:
                system.clear(self._signals)
                self._reap()
            elif descriptor == self._lease.fileno():
                self._obey()
            elif descriptor == self._alarm:
                self._run_out()
            elif self._heritage is not None:
                self._take_heir(self._heritage.hear(descriptor))

    def _obey(self) -> None:
        message, given = descriptors.receive(self._lease)
        if message is not None and message.get("op") == "linger" and self._tree.alive and self._heritage is None:
            kept = [*given, os.dup(self._page), os.pidfd_open(self._tree.first)]
            self._heritage = Heritage(self._directory, message, kept, self._poll)
            descriptors.send(self._lease, {"lingers": True})
            return
        descriptors.close_all(given)
        if message is None:
            self._lose_lease()
        elif message.get("op") == "end" and self._heritage is not None:
            self._heritage.close()
            self._heritage = None
        elif message.get("op") == "children_interrupt":
            self._interrupt_children(message["serial"])
        elif message.get("op") == "expect":
            self._expecting = True
        elif message.get("op") == "limit":
            self._limit(message["memory_bytes"], message["max_processes"])

    def _limit(self, memory_bytes: int | None, max_processes: int | None) -> None:
        """What the system bounds, nobody has to look for."""
        if not self._group.limit(memory_bytes, max_processes):
            self._exceed("memory")
        looked_for = None if self._group.bounds(MEMORY) else memory_bytes
        self._bounds = Bounds(looked_for, max_processes or self._most_processes)
        if self._bounds.max_processes is not None:
            # Among processes that multiply it would get ever less time to stop them.
            system.go_first()

    def _lose_lease(self) -> None:
        """The node has gone. If it has not said that this is the end, another one may come."""
        self._poll.unregister(self._lease)
        if self._heritage is None:
            self._tree.kill_first()
            return
        self._orphaned = True
        self._heritage.open()

    def _take_heir(self, lease: socket.socket | None) -> None:
        """Another node owns the box: it is told of what happened while there was none."""
        if lease is None or self._heritage is None:
            return
        self._lease.close()
        self._lease = lease
        self._poll.register(lease, select.POLLIN)
        self._orphaned = False
        if self._status:
            descriptors.send(lease, self._status)

    def _check_orphaned(self) -> None:
        """Wait for another node, but not for ever; meanwhile nothing outlives the worker."""
        if self._orphaned and self._heritage is not None and self._heritage.is_over():
            self._orphaned = False
            self._tree.kill_first()
        if self._orphaned and not (self._tree.alive or self._tree.childless):
            self._tree.kill()
            self._reap()

    def _interrupt_children(self, serial: int) -> None:
        """Interrupt what the execution has started, if it is the one that runs: nobody else's children."""
        if self._number(RUNNING) == serial:
            since = self._number(SINCE)
            with suppress(OSError):  # it is no page
                os.pwrite(self._page, serial.to_bytes(8, sys.byteorder), INTERRUPTED)
            system.signal_all(system.begun_since(system.descendants(self._tree.first), since), signal.SIGINT)

    def _number(self, slot: int) -> int:
        try:
            return int.from_bytes(os.pread(self._page, 8, slot), sys.byteorder)
        except OSError:  # it is no page: nothing has been told
            return 0

    def _reap(self) -> None:
        self._tree.reap(self._note_end)

    def _note_end(self, code: int, _usage: object) -> None:
        if not self._exceeded and self._group.has_run_out():  # the alarm may not have been heard yet
            self._exceeded = "memory"
        if self._alarm >= 0:  # others may sweep an empty group, and what is read of one that is gone is ready for ever
            self._poll.unregister(self._alarm)
        self._status = {"exit": code, "exceeded": self._exceeded}
        if not self._orphaned:
            descriptors.send(self._lease, self._status)

    def _check_bounds(self) -> None:
        if self._tree.alive and not self._exceeded:
            exceeded = self._bounds.exceeded(os.getpid())
            if exceeded:
                self._exceed(exceeded)

    def _run_out(self) -> None:
        """The system has told that there is no memory left for the group, and has killed one that was in it."""
        if self._group.has_run_out() and self._tree.alive and not self._exceeded:
            self._exceed("memory")

    def _exceed(self, bound: str) -> None:
        self._exceeded = bound
        self._tree.kill_first()
        self._tree.kill()


def remove_tree(path: str) -> None:
    """Remove a directory and all in it, also what its owner made inaccessible; what cannot be removed is left."""
    shutil.rmtree(path, ignore_errors=True)
    if not Path(path).is_dir():
        return
    with suppress(OSError):
        Path(path).chmod(0o700)
    for parent, names, _ in os.walk(path):
        for name in names:
            inner = Path(parent, name)
            if not inner.is_symlink():
                with suppress(OSError):
                    inner.chmod(0o700)
    shutil.rmtree(path, ignore_errors=True)


def _leave(spec: dict[str, Any], lease: socket.socket) -> NoReturn:
    spec["group"].remove()
    remove_tree(spec["dir"])
    descriptors.send(lease, {"gone": True})
    os._exit(0)
