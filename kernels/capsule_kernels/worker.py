"""The worker: wires page, pipes, sockets, shell and executors together and serves one session until it ends."""

from __future__ import annotations

import asyncio
import atexit
import gc
import inspect
import linecache
import os
import socket
import sys
import traceback
import warnings
from typing import Any, NoReturn

import msgpack

from capsule_kernels import borrowed, comms, descriptors, loops, sleeping, wiring
from capsule_kernels.attribution import follow_threads
from capsule_kernels.caches import InputCache
from capsule_kernels.capture import Outlet
from capsule_kernels.channel import out_of_the_way
from capsule_kernels.colours import cheapen
from capsule_kernels.handlers import Guards
from capsule_kernels.interrupts import Interrupts
from capsule_kernels.link import Link
from capsule_kernels.newborn import EXIT_FAILED
from capsule_kernels.prepared import Prepared
from capsule_kernels.recognised import show_zmqshell
from capsule_kernels.sandbox.errors import SandboxError
from capsule_kernels.sandbox.levels import Sandbox, describe
from capsule_kernels.shell import ZMQInteractiveShell, build
from capsule_kernels.swallowed import ask_again
from capsule_protocol.limits import Limits
from capsule_protocol.page import Page

_shell: ZMQInteractiveShell | None = None
_prepared: Prepared | None = None


def preload() -> None:
    """What all workers of a zygote can share; called once, before any fork."""
    global _shell  # noqa: PLW0603  # the one thing that is made before the fork and used after it
    follow_threads()
    sleeping.install()  # before any `from time import sleep`
    loops.allow_nested_runs()
    # Since Python 3.12. The threads it means are the worker's own, which hold no lock that a child could wait for.
    warnings.filterwarnings("ignore", r"This process \(pid=\d+\) is multi-threaded", DeprecationWarning)
    borrowed.locate()
    show_zmqshell()
    _shell = build()
    comms.prepare()
    cheapen()
    # What is made at its first use would be made in each worker, out of memory that it could share.
    asyncio.get_event_loop_policy()
    InputCache(_shell, 1)
    _ = _shell.logger  # IPython imports it at the end of a first cell, which may have used up all descriptors
    _show_errors(_shell)


def _show_errors(shell: ZMQInteractiveShell) -> None:
    """Import what the first error of a session would wait for, as notebooks are shown errors and as others are."""
    source, name = "raise LookupError\n", "<first error>"
    linecache.cache[name] = (len(source), None, [source], name)
    for colours in ("neutral", shell.colors):
        shell.colors = colours
        try:
            exec(compile(source, name, "exec"), {})  # noqa: S102  # the source of a cell is shown, not ours
        except LookupError as error:
            shell.traceback_lines(error)
    del linecache.cache[name]


def preloaded() -> None:
    """All that the workers of a zygote share is imported; called once, before any fork."""
    global _prepared  # noqa: PLW0603  # as above
    inspect.getmodule(preload.__code__, "<nowhere>")  # finds out where the files of all modules are, for tracebacks
    _prepared = Prepared(_shell or build(), Interrupts())


def rehearse_cells() -> None:
    """In a zygote only, before the environment's modules are imported."""
    wiring.rehearse_cells(_shell or build())


def rehearse() -> None:
    """In a zygote only, after all else."""
    if _prepared is not None:
        wiring.rehearse(_prepared)


def main(spec: dict[str, Any], lease_fd: int, stdout_fd: int, stderr_fd: int, page_fd: int) -> NoReturn:
    """Serve one session; never returns. `spec` is what the node sent with the fork request."""
    prepared = _prepared or Prepared(_shell or build(), Interrupts())
    shell, interrupts = prepared.shell, prepared.interrupts
    sys.modules["__main__"] = shell.user_module
    shell.kernel.pid = os.getpid()
    page = Page(page_fd)
    os.close(page_fd)
    interrupts.attach(page)
    interrupts.install()
    Guards(interrupts, shell.showtraceback).install()
    outlet = Outlet(_take_descriptors(stdout_fd, stderr_fd), page, spec["token"], interrupts)
    outlet.watch_forks()
    limits = Limits(**spec.get("limits", {}))
    link = Link(limits, outlet, interrupts, lasting=spec.get("lasting", False))
    link.bind(spec["dir"])
    interrupts.again = link.signal_main
    ask_again(interrupts)
    sandbox: Sandbox = spec["sandbox"]
    _tell_bound(lease_fd, sandbox.level, _confine(lease_fd, sandbox, spec["dir"]))
    sys.path[0:0] = spec.get("path") or ()  # not before: what is there may have the name of anything
    engine = wiring.assemble(prepared, link, outlet)
    wiring.install(engine)
    engine.warming.code = spec.get("warmup") or ""
    engine.warming.modules = spec.get("preload") or ()
    engine.scratch = f"{spec['dir']}/files"
    engine.debugging.folder = f"{spec['dir']}/cells"
    engine.checkpoints.folder = f"{spec['dir']}/checkpoints"
    gc.enable()
    try:
        link.accept()
        engine.serve()
        atexit._run_exitfuncs()  # noqa: SLF001  # the process leaves by os._exit
        outlet.flush()
        link.close()
    except BaseException:  # noqa: BLE001  # user code broke what the worker itself needs: say what, as output
        os.write(2, traceback.format_exc().encode(errors="backslashreplace"))
        os._exit(EXIT_FAILED)
    os._exit(0)


def _take_descriptors(stdout_fd: int, stderr_fd: int) -> tuple[int, int]:
    """Descriptors 0–2 for user code; for the worker's own use, descriptions of its own that never block a thread."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(stdout_fd, 1)
    os.dup2(stderr_fd, 2)
    for descriptor in {nothing, stdout_fd, stderr_fd} - {0, 1, 2}:
        os.close(descriptor)
    return _private(1), _private(2)


def _private(descriptor: int) -> int:
    """Another description of the same pipe: O_NONBLOCK on it does not show on the user's descriptor."""
    return out_of_the_way(os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC))


def _confine(lease_fd: int, sandbox: Sandbox, directory: str) -> int:
    """Enter the sandbox; the node is told why, if that cannot be. Gives the descriptor of the scratch, or -1."""
    try:
        return sandbox.enter(directory)
    except (OSError, SandboxError) as error:
        os.write(lease_fd, msgpack.packb({"unavailable": describe(error)}))
        raise


def _tell_bound(lease_fd: int, level: str, scratch: int) -> None:
    """The sockets are bound: the node may connect. The worker keeps no copy of the lease, nor of what it sends."""
    with socket.socket(fileno=lease_fd) as lease:
        descriptors.send(lease, {"bound": level}, [scratch] if scratch >= 0 else [])
    if scratch >= 0:
        os.close(scratch)
