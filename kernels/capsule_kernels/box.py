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
from typing import Any, Final, NoReturn

from capsule_kernels import descriptors, newborn, system
from capsule_kernels.bounds import Bounds
from capsule_kernels.heritage import Heritage
from capsule_protocol.page import INTERRUPTED, RUNNING, SINCE

# Each death of a child announces itself, so this only covers a child that /proc left out of a listing while it changed.
_LEFTOVER_INTERVAL_MS: Final = 50


def main(spec: dict[str, Any], given: descriptors.BoxDescriptors, worker: newborn.WorkerMain, lock: int) -> NoReturn:
    """Run a box in the process that the zygote has just forked for it; `lock` marks its directory as in use."""
    os.setsid()
    system.set_name("capsule-box")
    system.adopt_orphans()
    system.block_signals()
    lease = socket.socket(fileno=given.lease)
    lease.settimeout(None)  # a module of the environment may have set another default
    try:
        keeper = os.getpid()
        pid = os.fork()
    except OSError as error:
        descriptors.send(lease, {"error": {"name": type(error).__name__, "message": str(error)}})
        _leave(spec, lease)
    if pid == 0:
        newborn.become_worker(spec, given, worker, keeper)
    descriptors.close_all_but([given.lease, given.page, lock])
    _leave(spec, _Box(lease, given.page, pid, spec["dir"]).run())


class _Box:
    """The life of one worker, seen by its keeper."""

    def __init__(self, lease: socket.socket, page: int, worker: int, directory: str) -> None:
        self._lease = lease
        self._page = page
        self._worker = worker
        self._directory = directory
        self._heritage: Heritage | None = None
        self._orphaned = False
        self._status: dict[str, Any] = {}
        self._bounds = Bounds()
        self._exceeded = ""
        self._expecting = False
        self._killed: set[int] = set()
        self._alive = True
        self._childless = False
        self._signals = system.child_signals()
        self._poll = select.poll()
        self._poll.register(self._signals, select.POLLIN)
        self._poll.register(lease, select.POLLIN)

    def run(self) -> socket.socket:
        """Wait for the worker's end and then for that of everything it left; returns the lease, to say good-bye."""
        pidfd = os.pidfd_open(self._worker)
        descriptors.send(self._lease, {"worker": self._worker}, [pidfd])
        os.close(pidfd)
        self._reap()
        while self._alive or self._orphaned:
            self._wait(self._until_next_look())
            self._check_bounds()
            self._check_orphaned()
        while not self._childless:
            self._kill_tree()
            self._reap()
            if not self._childless:
                self._wait(_LEFTOVER_INTERVAL_MS)
        if self._heritage is not None:
            self._heritage.close()
        return self._lease

    def _until_next_look(self) -> int | None:
        """In milliseconds; None if there is nothing to look for."""
        look = self._bounds.interval(busy=self._expecting or self._number(RUNNING) != 0) if self._alive else None
        if self._orphaned and self._heritage is not None:
            waits = self._heritage.milliseconds()
            if not (self._alive or self._childless):
                waits = min(waits, _LEFTOVER_INTERVAL_MS)
            return waits if look is None else min(look, waits)
        return look

    def _wait(self, timeout: float | None) -> None:
        ready = self._poll.poll(timeout)
        if not ready:
            self._expecting = False
            self._killed.clear()
        for descriptor, _ in ready:
            if descriptor == self._signals:
                system.clear(self._signals)
                self._reap()
            elif descriptor == self._lease.fileno():
                self._obey()
            elif self._heritage is not None:
                self._take_heir(self._heritage.hear(descriptor))

    def _obey(self) -> None:
        message, given = descriptors.receive(self._lease)
        if message is not None and message.get("op") == "linger" and self._alive and self._heritage is None:
            kept = [*given, os.dup(self._page), os.pidfd_open(self._worker)]
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
            self._bounds = Bounds(message["memory_bytes"], message["max_processes"])
            if self._bounds.max_processes is not None:
                # Among processes that multiply it would get ever less time to stop them.
                system.go_first()

    def _lose_lease(self) -> None:
        """The node has gone. If it has not said that this is the end, another one may come."""
        self._poll.unregister(self._lease)
        if self._heritage is None:
            self._kill()
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
            self._kill()
        if self._orphaned and not (self._alive or self._childless):
            self._kill_tree()
            self._reap()

    def _interrupt_children(self, serial: int) -> None:
        """Interrupt what the execution has started, if it is the one that runs: nobody else's children."""
        if self._number(RUNNING) == serial:
            since = self._number(SINCE)
            with suppress(OSError):  # it is no page
                os.pwrite(self._page, serial.to_bytes(8, sys.byteorder), INTERRUPTED)
            system.signal_all(system.begun_since(system.descendants(self._worker), since), signal.SIGINT)

    def _number(self, slot: int) -> int:
        try:
            return int.from_bytes(os.pread(self._page, 8, slot), sys.byteorder)
        except OSError:  # it is no page: nothing has been told
            return 0

    def _kill(self) -> None:
        """Kill the worker and its process group in one step, which no forking in a loop can outrun.

        The worker has not been reaped while this is called, so its number belongs to nobody else.
        """
        if self._alive:
            with suppress(ProcessLookupError):
                os.killpg(self._worker, signal.SIGKILL)
            os.kill(self._worker, signal.SIGKILL)

    def _kill_tree(self) -> None:
        """Kill all that there is below the box, also what left the worker's process group.

        Those that were killed before are passed by: each death wakes the box, and to walk past all that still die would
        keep it from seeing who is new. Their children have been found, or have come to the box since.
        """
        for pid in system.walk(os.getpid(), self._killed):
            self._killed.add(pid)
            system.signal_all([pid], signal.SIGKILL)

    def _reap(self) -> None:
        try:
            while ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                if ended.si_pid == self._worker:
                    self._kill()
                    self._alive = False
                    status = ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
                    self._status = {"exit": status, "exceeded": self._exceeded}
                    if not self._orphaned:
                        descriptors.send(self._lease, self._status)
                os.waitpid(ended.si_pid, 0)
                self._killed.discard(ended.si_pid)  # the number may be another's from here on
        except ChildProcessError:
            self._childless = True

    def _check_bounds(self) -> None:
        if self._alive and not self._exceeded:
            self._exceeded = self._bounds.exceeded(os.getpid())
            if self._exceeded:
                self._kill()
                self._kill_tree()


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
    remove_tree(spec["dir"])
    descriptors.send(lease, {"gone": True})
    os._exit(0)
