"""The launcher: forks a keeper for each run of a program, and does nothing else.

Started as `python -P -m capsule_kernels.programs.launcher --fd N --directory D`: N is a SOCK_SEQPACKET socket whose
other end is the node, D a directory of its own. A fork of it costs a fraction of what starting an interpreter costs,
and it is no fork of the node, which has threads and secrets. It ends when the node's end closes and the last run is
over: each run sees the node's end by its own lease.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
import sys
from contextlib import suppress
from typing import Any, NoReturn

import msgpack

from capsule_kernels import descriptors, system
from capsule_kernels.box import remove_tree
from capsule_kernels.programs import confinement, keeper, spec
from capsule_kernels.programs.groups import RunGroup, RunGroups
from capsule_protocol import passing

_MOST_DESCRIPTORS = 200
_MESSAGE_BYTES = 2**20


class _Launcher:
    """The one connection of this process, and the keepers that it has forked."""

    def __init__(self, sock: socket.socket, directory: str) -> None:
        self._sock = sock
        self._directory = directory
        self._groups = RunGroups()
        self._proc = os.open("/proc", os.O_PATH | os.O_CLOEXEC)  # runs have others, or may only read it
        self._keepers: dict[int, tuple[str, RunGroup]] = {}
        self._count = 0
        self._signals = system.child_signals()
        self._poll = select.poll()
        self._poll.register(self._signals, select.POLLIN)
        self._poll.register(sock, select.POLLIN)
        self._open = True

    def serve(self) -> None:
        """Fork on request and reap, until the node has gone and no run is left."""
        while self._open or self._keepers:
            for descriptor, _ in self._poll.poll():
                if descriptor == self._signals:
                    system.clear(self._signals)
                    self._reap()
                else:
                    self._answer()

    def _answer(self) -> None:
        message, given = self._receive()
        if message is None:
            self._poll.unregister(self._sock)
            self._open = False
            return
        try:
            self._fork(message, given)
        except (OSError, ValueError, LookupError, TypeError) as error:
            _refuse(given, error)
        finally:
            descriptors.close_all(given)

    def _receive(self) -> tuple[dict[str, Any] | None, list[int]]:
        try:
            data, given, _ = passing.receive(self._sock, _MESSAGE_BYTES, _MOST_DESCRIPTORS)
        except OSError:
            return None, []
        return (msgpack.unpackb(data) if data else None), given

    def _fork(self, message: dict[str, Any], given: list[int]) -> None:
        self._count += 1
        directory = f"{self._directory}/{self._count}"
        run = spec.parsed(message, given, directory)
        group = self._groups.make(run, self._count)
        try:
            os.mkdir(directory, 0o700)  # noqa: PTH102 (each run waits for it)
            pid = confinement.fork(run.level, network=run.network)
            if pid == 0:
                keeper.main(run, group, self._proc)
            self._keepers[pid] = directory, group
        except BaseException:
            keeper.remove(directory)
            self._groups.leave(group)
            self._groups.clear()
            raise
        finally:
            group.close()

    def _reap(self) -> None:
        """Bury keepers that ended, and kill what one that was killed could not: those come here as orphans."""
        with suppress(ChildProcessError):
            while (waited := os.waitpid(-1, os.WNOHANG | os.WUNTRACED)) != (0, 0):
                pid, status = waited
                if os.WIFSTOPPED(status):
                    os.kill(pid, signal.SIGKILL)
                elif (ended := self._keepers.pop(pid, None)) is not None:
                    keeper.remove(ended[0])
                    self._groups.leave(ended[1])
        self._groups.clear()
        system.signal_all([pid for pid in system.children(os.getpid()) if pid not in self._keepers], signal.SIGKILL)


def _refuse(given: list[int], error: Exception) -> None:
    """Tell over the lease of a run, if there is one, that there will be none."""
    if given:
        with suppress(OSError), socket.socket(fileno=os.dup(given[0])) as lease:
            descriptors.send(lease, {"error": f"no process for it: {error}"})


def main() -> NoReturn:
    """Serve the socket named on the command line; or say of one level of the sandbox what it lacks here."""
    if "--lacking" in sys.argv:
        sys.stdout.write(confinement.lacking(sys.argv[-1]))
        sys.stdout.flush()
        os._exit(0)
    descriptor = int(sys.argv[sys.argv.index("--fd") + 1])
    directory = sys.argv[sys.argv.index("--directory") + 1]
    os.set_inheritable(descriptor, False)  # noqa: FBT003 (the function takes it by position only)
    system.set_name("capsule-launch")
    system.adopt_orphans()
    confinement.prepare()
    gc.disable()
    gc.freeze()
    launcher = _Launcher(socket.socket(fileno=descriptor), directory)
    launcher.serve()
    remove_tree(directory)
    os._exit(0)


if __name__ == "__main__":
    main()
