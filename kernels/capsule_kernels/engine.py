"""The main thread's loop: one message after another; between them the session's tasks run."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import signal
import sys
import threading
from collections import deque
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capsule_kernels import caps, files, system
from capsule_kernels.attribution import OWNER
from capsule_kernels.caches import InputCache, SourceCache
from capsule_kernels.cells import CellRunner, cell_of
from capsule_kernels.configuring import configure
from capsule_kernels.link import Link, failure, unknown_type
from capsule_kernels.memory import resident_bytes
from capsule_kernels.streams import flush_c_output
from capsule_kernels.subshells import Parts, Subshells
from capsule_protocol.envelope import Envelope
from capsule_protocol.errors import ArgumentError, LocalProtocolError

if TYPE_CHECKING:
    from collections.abc import Callable

    from capsule_kernels.about import CapsuleMagic
    from capsule_kernels.answering import Answering
    from capsule_kernels.calls import Calls
    from capsule_kernels.capture import Outlet
    from capsule_kernels.checkpoints import Checkpoints
    from capsule_kernels.comms import Comms
    from capsule_kernels.debugging import Debugging
    from capsule_kernels.loops import SessionLoop
    from capsule_kernels.publisher import Publisher
    from capsule_kernels.shell import ZMQInteractiveShell
    from capsule_kernels.stdin import Stdin
    from capsule_kernels.warming import Warming

FEATURES = ["introspection", "comms", "progress", "stdin"]
VERSION = "1.0"
EXHAUSTED = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""Errors of the system that say nothing against what was asked for."""
OWN_THREADS = 2
"""The main thread and the I/O thread."""
ABOUT_CALLS = ("capability_reply", "stream_data", "stream_credit")
"""What the node says of calls under way."""


@dataclass(slots=True)
class Engine:
    """Serves one session. Everything here runs on the main thread, except `_control`'s handlers."""

    shell: ZMQInteractiveShell
    link: Link
    outlet: Outlet
    publisher: Publisher
    stdin: Stdin
    loop: SessionLoop
    answering: Answering
    comms: Comms
    calls: Calls
    debugging: Debugging
    runner: CellRunner
    checkpoints: Checkpoints
    magic: CapsuleMagic
    warming: Warming
    subshells: Subshells = field(init=False)
    epoch: int = 0
    scratch: str = ""
    """The directory that the session gets: where it works unless it was given another, and where uploads land."""
    pid: int = field(default_factory=os.getpid)
    serving: bool = True
    busy: bool = False
    backlog: deque[Envelope] = field(default_factory=deque)
    cancelled: set[str] = field(default_factory=set)
    started: int = 0
    turn: threading.Lock = field(default_factory=threading.Lock)
    """Held while an execution starts, or is cancelled before its start."""

    def __post_init__(self) -> None:
        parts = Parts(
            self.shell,
            self.link,
            self.publisher,
            self.stdin,
            self.comms,
            self.runner,
            self._send_verdict,
            self.answering.aside,
            _end_fork,
        )
        self.subshells = Subshells(parts)

    def serve(self) -> None:
        """Serve until the node asks to shut down."""
        handlers: dict[str, Callable[[Envelope], None]] = {
            "hello": self._hello,
            "open": self._open,
            "execute": self._execute,
            "shutdown": self._shutdown,
            **dict.fromkeys(self.answering.answers, self.answering.here),
            **dict.fromkeys(self.checkpoints.kinds, self._checkpoint),
        }
        control = {
            "heartbeat": self._heartbeat,
            "input_reply": self.stdin.answer,
            "cancel": self._cancel,
            "confirm": self._confirm,
            "adopt": self._adopt,
            "debug": self.debugging.take,
            **dict.fromkeys(ABOUT_CALLS, self.calls.hear),
            **self.subshells.control(self.answering.answers),
        }
        self.link.start(control)
        while self.serving:
            try:
                envelope = self._next()
                handlers.get(envelope.type, self._unknown)(envelope)
            except KeyboardInterrupt:  # it came behind the last bytecode of its cell, whose verdict is sent
                continue

    def _next(self) -> Envelope:
        """The next message; while there is none, tasks that cells left behind go on."""
        # A thread that a cell left behind may call into the loop at any time; one of ours serves the control socket.
        in_loop = self.loop.used or threading.active_count() > OWN_THREADS
        envelope = self.link.receive(wait=not in_loop)
        if envelope is not None:
            if in_loop:
                self.loop.run_once()
            return envelope
        while envelope is None:
            self.loop.run_until_readable(self.link.shell_descriptor)
            envelope = self.link.receive(wait=False)
        return envelope

    def _execute(self, envelope: Envelope) -> None:
        said = envelope.body.get("comm")
        if said is not None:
            hear = partial(self.comms.hear, said, envelope.buffers)
            payloads = envelope.body.get("payloads", False)
            self._take_turn(envelope, lambda: self.runner.call(envelope.sequence, hear, payloads=payloads))
            return
        cell = cell_of(envelope)
        self._take_turn(envelope, lambda: self.runner.run(cell))

    def _checkpoint(self, envelope: Envelope) -> None:
        self._take_turn(envelope, lambda: self.checkpoints.run(envelope.type, envelope.sequence, envelope.body))

    def _take_turn(self, envelope: Envelope, work: Callable[[], dict[str, Any]]) -> None:
        """Run what has a serial and ends in a verdict, unless it was cancelled before its turn."""
        body, serial = envelope.body, envelope.sequence
        with self.turn:
            if serial <= self.started:  # a node that adopted this worker could not know that it was here already
                return
            self.started = serial
            if envelope.execution in self.cancelled:
                self.cancelled.discard(envelope.execution)
                self.answering.skip(serial)
                return
        self.busy = True
        self.stdin.allowed = body.get("allow_input", False)
        self.publisher.begin(serial, envelope.execution)
        self.outlet.begin(serial)
        OWNER.set(serial)
        answer = work()
        if os.getpid() != self.pid:  # the cell forked, and this is the child, which has come to its end
            _end_fork(answer)
        OWNER.set(0)
        self._end_children(answer["verdict"])
        self._send_verdict(envelope, answer)
        if self.shell.past.has_file:
            self.shell.past.write()
        self.busy = False

    def _end_children(self, verdict: str) -> None:
        """Children end with a cell whose time is over; with one that was interrupted they are, if the box came late."""
        ended = self.outlet.end()
        if ended.timed_out or (verdict == "interrupted" and not ended.children_told):
            others = [pid for pid in system.descendants(os.getppid()) if pid != self.pid]
            number = signal.SIGKILL if ended.timed_out else signal.SIGINT
            system.signal_all(system.begun_since(others, ended.since), number)

    def _send_verdict(self, envelope: Envelope, body: dict[str, Any]) -> None:
        """All output first: held text into the pipes, then, unless the node has read everything, a fence."""
        flush_c_output()
        body["fence"] = self.outlet.fence(message=False)
        kind = "result" if body["verdict"] == "ok" else "error"
        verdict = Envelope(kind, body, session=envelope.session, execution=envelope.execution)
        try:
            self.link.tell(verdict)
        except LocalProtocolError as error:
            too_large = _too_large_body(body, error)
            self.link.tell(verdict._replace(type="error", body=too_large))

    def _hello(self, envelope: Envelope) -> None:
        """The welcome says that what the environment asks of each worker is done, if it asks for anything.

        Else an empty cell runs behind it: what each cell touches of the zygote's memory is the worker's own by then,
        and neither the welcome nor the first cell of a session need wait for that.
        """
        if self.warming.is_asked_for:
            self.loop.open()
            failed = self.warming.run()
            if failed is not None:
                message, details = failed
                self.link.send(failure(envelope, "environment_failed", message, details=details))
                return
            asyncio.set_event_loop(self.loop)  # a module may have chosen another policy, which has none
        body = {"version": VERSION, "features": FEATURES, "limits": None, "epoch": 0}
        self.link.send(Envelope("welcome", body, session=envelope.session))
        if not self.warming.is_asked_for:
            self.loop.open()
        self.warming.run_empty()

    def _open(self, envelope: Envelope) -> None:
        """Make the worker this session's: environment, directory, files, arguments, path, bounds."""
        body = envelope.body
        self.publisher.session = envelope.session
        self.epoch = body.get("epoch", 0)
        self.magic.open(envelope.session, body)
        options = body.get("options") or {}
        try:
            _apply(body, self.scratch)
            self.shell.history_manager.dir_hist[:] = [Path.cwd()]  # for `%cd -` and `%dhist`; it was the zygote's
            _limit_open_files(options.get("max_open_files"))
            if options.get("ipython"):
                configure(self.shell, options["ipython"])
        except ArgumentError as error:
            self.link.send(failure(envelope, error.code, error.message, details=error.details))
            return
        except (OSError, ValueError) as error:
            self.link.send(failure(envelope, _code_of(error), f"the session cannot be opened: {error}"))
            return
        try:
            if body.get("files"):
                files.write_all(zip(body["files"], envelope.buffers, strict=True))
        except (OSError, ValueError) as error:
            details = {"argument": "files"}
            self.link.send(failure(envelope, _code_of(error), f"files: {error}", details=details))
            return
        if options.get("capabilities"):
            self.shell.add_name(caps.NAME, caps.install(self.calls))
        self.shell.displayhook.cache_size = options.get("out_cache", 1000)
        self.runner.bound(
            SourceCache(self.shell, options.get("source_cache", 1000)),
            InputCache(self.shell, options.get("out_cache", 1000)),
        )
        version = ".".join(map(str, sys.version_info[:3]))
        ready = {"pid": self.pid, "python": version, "implementation": sys.implementation.name, "worker": VERSION}
        self.link.send(Envelope("ready", ready, session=envelope.session))

    def _unknown(self, envelope: Envelope) -> None:
        self.link.send(unknown_type(envelope))

    def _shutdown(self, _envelope: Envelope) -> None:
        self.serving = False

    def _cancel(self, envelope: Envelope) -> None:
        """On the I/O thread: an execution that has not started has its verdict now, and its turn is skipped."""
        execution = str(envelope.body.get("execution"))
        with self.turn:
            if envelope.sequence <= self.started or execution in self.cancelled:
                return
            self.cancelled.add(execution)
        body = {**_cancelled_body(), "fence": 0}
        self.link.tell(Envelope("error", body, session=envelope.session, execution=execution))

    def _confirm(self, envelope: Envelope) -> None:
        """On the I/O thread: what is dealt with for good need not be kept for another node."""
        self.link.confirm(envelope.body["number"])

    def _adopt(self, envelope: Envelope) -> None:
        """On the I/O thread: another node takes the place of the one that died, also while a cell runs."""
        body = envelope.body
        if envelope.session != self.publisher.session or body.get("epoch") != self.epoch:
            message = f"this worker is of session {self.publisher.session!r}, epoch {self.epoch}"
            self.link.answer(envelope, failure(envelope, "adoption_refused", message))
            return
        answer = {
            "version": VERSION,
            "features": FEATURES,
            "limits": None,
            "inputs": self.stdin.asked(),
            "execution_count": self.shell.execution_count,
            "subshells": self.subshells.told(),
        }
        self.link.greet(envelope, Envelope("adopted", answer), body["after"])
        self.calls.again(lambda request: self.link.answer(envelope, request))

    def _heartbeat(self, envelope: Envelope) -> None:
        """On the I/O thread, also while a cell runs."""
        body = {
            "number": envelope.body.get("number", 0),
            "rss": resident_bytes(self.pid),
            "busy": self.busy,
            "serial": self.publisher.serial,
            "threads": threading.active_count(),
        }
        self.link.answer(envelope, Envelope("heartbeat", body))


def _apply(body: dict[str, Any], scratch: str) -> None:
    os.environ["SESSION_FILES"] = scratch
    for name, value in (body.get("env") or {}).items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    cwd, confined = body.get("cwd") or scratch, os.path.lexists(scratch)
    if not confined:  # in a sandbox it is there
        os.mkdir(scratch, 0o700)  # noqa: PTH102  # pathlib is not needed for anything else here
    os.chdir(cwd)
    if confined:
        os.close(os.open(cwd, os.O_RDONLY | os.O_DIRECTORY))  # to enter is allowed where nothing else is
    sys.argv[:] = body.get("argv") or [""]
    sys.path[0:0] = body.get("path") or [""]  # as in a notebook: modules are found where the code works


def _limit_open_files(wanted: int | None) -> None:
    """For the worker and what it starts; what is open stays open. Raises ArgumentError if the system allows fewer."""
    if wanted is None:
        return
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if wanted > hard != resource.RLIM_INFINITY:
        raise ArgumentError("max_open_files", f"is {wanted}", allowed=f"at most {hard}, the system's limit")
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, wanted))


def _code_of(error: Exception) -> str:
    """Whose fault it is that a session cannot be opened."""
    return "worker_start_failed" if getattr(error, "errno", None) in EXHAUSTED else "invalid_argument"


def _cancelled_body() -> dict[str, Any]:
    return {
        "verdict": "interrupted",
        "name": "cancelled",
        "message": "the execution was cancelled before it started",
        "traceback": [],
        "code": "execution_cancelled",
        "hint": "",
        "details": {},
        "execution_count": 0,
        "duration": 0.0,
    }


def _too_large_body(body: dict[str, Any], error: LocalProtocolError) -> dict[str, Any]:
    message = f"the value of the last expression does not fit into a message: {error.message}"
    return {
        **_cancelled_body(),
        "verdict": "error",
        "name": "ResultTooLarge",
        "message": message,
        "code": "result_too_large",
        "hint": "End the cell with a smaller value, or raise message_bytes.",
        "details": error.details,
        **{name: body[name] for name in ("execution_count", "duration", "fence")},
    }


def _end_fork(body: dict[str, Any]) -> None:
    """A child that `os.fork` made in a cell ends as a process does at the end of its script."""
    for line in body.get("traceback", ()):
        print(line, file=sys.stderr)
    os._exit(int(body.get("details", {}).get("exit_code", body["verdict"] != "ok")))
