"""The zygote: imports an environment's modules once and then only forks boxes.

Started as `python -P -m capsule_kernels.zygote --fd N`, N being a SOCK_SEQPACKET socket whose other end is the node. It
never starts a thread, an event loop or a ZeroMQ context: none of them survives a fork. It ends when the node's end
closes. While it imports it cannot see that; the node has therefore asked the kernel to kill the zygote's process group
in that case (see `capsule.node.launch`), until `_Zygote.setup` is over. PR_SET_PDEATHSIG would not do: it fires when
the *thread* ends that started the zygote, and in library mode that may be any thread of the program.
"""

from __future__ import annotations

import fcntl
import gc
import os
import resource
import select
import signal
import socket
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NoReturn

from capsule_kernels import box, descriptors, directories, hugepages, newborn, system
from capsule_kernels.failures import describe
from capsule_kernels.rehearsal import rehearse
from capsule_kernels.sandbox import view
from capsule_kernels.sandbox.errors import SandboxError
from capsule_kernels.sandbox.levels import Sandbox
from capsule_kernels.sandbox.trial import try_out
from capsule_kernels.spare import Spare
from capsule_kernels.spawning import Spawning

if TYPE_CHECKING:
    from capsule_kernels.sandbox.groups import Group

_QUIET_MS = 10
"""Milliseconds without a request after which there is time to make a box ahead: not while workers start."""


class _Zygote:
    """The one connection of this process and the boxes forked on its behalf."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._boxes: dict[int, Group] = {}
        self._spare: Spare | None = None
        self._spare_wanted = True
        self._directory = ""
        self._worker: newborn.WorkerMain
        self._sandbox: Sandbox

    def setup(self) -> None:
        """Import all that the children share; the answer tells how that went."""
        message, given = descriptors.receive(self._sock)
        descriptors.close_all(given)
        if message is None:
            _end()
        gc.disable()
        self._directory = str(message.get("boxes", ""))
        # Now: the process id of this zygote may be that of one which crashed, and it has no directory of its own yet.
        directories.sweep(self._directory)
        try:
            self._worker = _prepared(message)
            self._sandbox = Sandbox(_sandbox_options(message))
        except BaseException as error:  # noqa: BLE001 (SystemExit of a module is its failure too)
            self._disarm()
            descriptors.send(self._sock, {"ok": False, "error": describe(error)})
            _end()
        self._try_sandbox()
        _silence()
        _dump_no_cores()
        _default_signals()
        system.adopt_orphans()
        system.set_name("capsule-zygote")
        newborn.prepare()
        rehearse()
        hugepages.gather()
        gc.freeze()
        self._disarm()

    def _try_sandbox(self) -> None:
        """What a session would be refused, all are refused now."""
        if self._sandbox.level == "none":
            return
        try:
            try_out(self._sandbox, self._directory)
        except SandboxError as error:
            self._disarm()
            descriptors.send(self._sock, {"ok": False, "error": describe(error)})
            _end()

    def serve(self) -> NoReturn:
        """Fork on request and reap, until the node has gone."""
        signals = system.child_signals()
        poll = select.poll()
        poll.register(signals, select.POLLIN)
        poll.register(self._sock, select.POLLIN)
        self._reap()
        self._sandbox.groups.sweep()
        descriptors.send(self._sock, {"ok": True, "pid": os.getpid(), "groups": self._sandbox.groups.folders})
        self._sandbox.groups.prepare()  # when the node knows where
        while True:
            ready = poll.poll(_QUIET_MS if self._spare_wanted else None)
            if not ready:
                self._fork_spare()
            for descriptor, _ in ready:
                if descriptor == signals:
                    system.clear(signals)
                    self._reap()
                else:
                    self._answer()

    def _answer(self) -> None:
        message, given = descriptors.receive(self._sock)
        if message is None:
            if self._directory:
                directories.remove_empty(self._directory, os.getpid())
            self._end_spare()
            self._sandbox.groups.close()
            _end()
        reply: dict[str, Any] = {"id": message.get("id")}
        try:
            reply["pid"] = self._fork(message["spec"], given)
        except Exception as error:  # noqa: BLE001 (the next request may be a better one)
            reply["error"] = describe(error)
        finally:
            descriptors.close_all(given)
        descriptors.send(self._sock, reply)
        self._sandbox.groups.prepare()

    def _fork(self, spec: dict[str, Any], given: list[int]) -> int:
        _check(spec, given)
        spare, self._spare, self._spare_wanted = self._spare, None, True
        if spare is not None:
            with directories.held(spec["dir"]) as lock:
                if spare.use(spec, descriptors.BoxDescriptors(*given), lock):
                    return spare.pid
        _flush()
        spec["sandbox"] = self._sandbox
        group = spec["group"] = self._sandbox.groups.take()
        try:
            pid = self._fork_box(spec, given)
        except BaseException:
            group.remove()
            raise
        self._boxes[pid] = group
        return pid

    def _fork_box(self, spec: dict[str, Any], given: list[int]) -> int:
        with directories.held(spec["dir"]) as lock:
            pid = self._sandbox.fork()
            if pid == 0:
                try:
                    box.main(spec, descriptors.BoxDescriptors(*given), self._worker, lock)
                finally:
                    os._exit(newborn.EXIT_FAILED)
        return pid

    def _fork_spare(self) -> None:
        """While there is nothing else to do. What cannot be had now is tried again after the next request."""
        self._spare_wanted = False
        _flush()
        with suppress(OSError):
            self._spare = Spare(self._sandbox, self._worker)
            self._boxes[self._spare.pid] = self._spare.group
            self._sandbox.groups.prepare()

    def _end_spare(self) -> None:
        if self._spare is not None:
            os.kill(self._spare.pid, signal.SIGKILL)
            os.waitpid(self._spare.pid, 0)
            self._spare.close()
            self._spare.group.remove()

    def _reap(self) -> None:
        """Bury boxes that ended and kill what a box that was killed could not: those come here as orphans.

        An orphan is a child by the time its last parent's end is announced, and its own end is announced again.
        """
        with suppress(ChildProcessError):
            while (changed := os.waitpid(-1, os.WNOHANG | os.WUNTRACED)) != (0, 0):
                pid, status = changed
                if os.WIFSTOPPED(status):  # user code can do that, and nobody would then end the box
                    os.kill(pid, signal.SIGKILL)
                elif pid in self._boxes:
                    self._sandbox.groups.leave(self._boxes.pop(pid))
                    if self._spare is not None and self._spare.pid == pid:
                        self._spare.close()
                        self._spare = None
        self._sandbox.groups.clear()
        system.signal_all([pid for pid in system.children(os.getpid()) if pid not in self._boxes], signal.SIGKILL)

    def _disarm(self) -> None:
        """From here on the end of the node is seen by reading."""
        fcntl.fcntl(self._sock, fcntl.F_SETFL, fcntl.fcntl(self._sock, fcntl.F_GETFL) & ~os.O_ASYNC)


def _prepared(request: dict[str, Any]) -> newborn.WorkerMain:
    """What workers do when they have been forked, with all of it imported that they share."""
    if request.get("start_method") == "spawn":
        return Spawning(request)
    from capsule_kernels import preloading  # late: it imports much

    return preloading.load(request)


def _sandbox_options(request: dict[str, Any]) -> dict[str, Any]:
    """What the node says; what the sandbox cannot learn of modules that are loaded, it learns by looking for them.

    Not in `path`, all of which it lets workers read: nothing that is there may be imported here.
    """
    options: dict[str, Any] = request.get("sandbox") or {}
    if request.get("start_method") != "spawn":
        return options
    of_path = (path for path in request.get("path", []) if path.startswith("/"))
    of_modules = view.of_modules(request.get("preload", []))
    return options | {"readable": [*options.get("readable", ()), *of_path, *of_modules]}


def _check(spec: dict[str, Any], given: list[int]) -> None:
    wanted = len(descriptors.BoxDescriptors._fields)
    if len(given) != wanted:
        raise ValueError(f"a box needs {wanted} descriptors, not {len(given)}")
    if not isinstance(spec["dir"], str):
        raise TypeError("the directory of a box is a string")


def _flush() -> None:
    """What stays in a buffer would be written once more by each child."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()


def _default_signals() -> None:
    """Undo what preloaded modules did: a signal to a child must neither run their handlers nor wake the zygote."""
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGPIPE, signal.SIGXFSZ}:
        if signal.getsignal(number) != signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


def _dump_no_cores() -> None:
    """To write down the memory of a worker that crashed delays its verdict. User code may raise the limit again."""
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))


def _silence() -> None:
    """Point standard output and error, where a preload's last words went, at nothing."""
    _flush()
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    os.close(null)


def _end() -> NoReturn:
    """Leave, and take along what preloaded modules started: the zygote leads its process group."""
    os.killpg(0, signal.SIGKILL)
    os._exit(0)


def main() -> NoReturn:
    """Serve the socket named on the command line."""
    descriptor = int(sys.argv[sys.argv.index("--fd") + 1])
    os.set_inheritable(descriptor, False)  # noqa: FBT003 (the function takes it by position only)
    if os.getpgrp() != os.getpid():
        os.setpgid(0, 0)  # `_end` kills the group
    zygote = _Zygote(socket.socket(fileno=descriptor))
    zygote.setup()
    zygote.serve()


if __name__ == "__main__":
    main()
