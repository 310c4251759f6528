"""Subshells: threads that run code beside the main shell, in the same namespace. Each has an order of its own.

A subshell counts its cells by itself, and leaves `In`, `Out`, `_` and the history to the main shell, whose numbers
would else depend on what runs beside it.
"""

from __future__ import annotations

import asyncio
import os
import queue
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from IPython.core.displayhook import DisplayHook

from capsule_kernels import figures, sleeping, system
from capsule_kernels.aside import AsideInterrupts
from capsule_kernels.attribution import OWNER
from capsule_kernels.cells import CellRunner, cell_of
from capsule_kernels.channel import out_of_the_way
from capsule_kernels.display import CellDisplayHook
from capsule_kernels.executors import AsyncExecutor, ThreadedExecutor
from capsule_kernels.link import failure
from capsule_kernels.loops import SessionLoop
from capsule_protocol.envelope import Envelope

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from IPython.core.interactiveshell import ExecutionResult

    from capsule_kernels.comms import Comms
    from capsule_kernels.link import Link
    from capsule_kernels.publisher import Publisher
    from capsule_kernels.shell import ZMQInteractiveShell
    from capsule_kernels.stdin import Stdin

SOON = 0.005
"""Seconds after which an interrupt that came in the midst of a step of the worker's is tried again."""
TRIES = 100
"""The node asks again after its grace."""


class AsideLoop(SessionLoop):
    """The event loop of a subshell, which no signal wakes."""

    def wake_on_signals(self) -> None:
        """Nothing: signals are the main thread's."""

    def end(self) -> None:
        """Cancel what is left in it, and give its descriptors back."""
        for task in asyncio.all_tasks(self):
            task.cancel()
        self.run_once()
        asyncio.SelectorEventLoop.close(self)


class AsideDisplayHook(CellDisplayHook):
    """Shows values, and keeps none."""

    def __init__(self, shell: ZMQInteractiveShell) -> None:
        super(DisplayHook, self).__init__(shell=shell, config=shell.config)  # DisplayHook's own would empty `_`
        self._ = self.__ = self.___ = ""
        self.cache_size, self.do_full_cache, self.exec_result = 0, False, None
        self._is_active = False
        self.begin()
        self.note_printers()

    def update_user_ns(self, result: Any) -> None:
        """Nothing: `_` and `Out` are the main shell's."""

    def log_output(self, format_dict: dict[str, Any]) -> None:
        """Nothing: so is the history."""


class AsideRunner(CellRunner):
    """Runs the cells of a subshell, whose numbers are its own."""

    count = 1

    def _note(self, count: int, source: str, code: str) -> None:
        """Nothing: `In` and the history are the main shell's."""

    def _take_values(self) -> None:
        """Leave `sys.displayhook`, which all threads share, as the main shell's cell has it."""

    def _remember(self, result: ExecutionResult, *, succeeded: bool) -> None:
        """Nothing: the last cell is the main shell's."""

    def _show(self, value: Any) -> None:
        """Show a value here, whatever the main shell captures meanwhile."""
        self._result.result = value
        self._hook(value)

    def serve_here(self) -> None:
        """The calling thread is the subshell's."""
        self._hook.serve_here()


@dataclass(slots=True)
class Parts:
    """What subshells share with the rest of the worker."""

    shell: ZMQInteractiveShell
    link: Link
    publisher: Publisher
    stdin: Stdin
    comms: Comms
    runner: CellRunner
    tell: Callable[[Envelope, dict[str, Any]], None]
    """Sends a verdict, behind all output."""
    reply: Callable[[Envelope], None]
    """Answers a question."""
    end_fork: Callable[[dict[str, Any]], object]
    """Ends a child that a cell has forked."""


class Subshells:
    """Those of one session, by name. All methods are called on the I/O thread, except `names` and `here`."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._open: dict[str, Subshell | None] = {}  # None: not used yet
        self._newest = 0
        self._ending: list[Subshell] = []

    @property
    def names(self) -> list[str]:
        """Those that are open."""
        return list(self._open)

    @property
    def here(self) -> str:
        """That of the calling thread, or ""."""
        me = threading.current_thread()
        return next((name for name, one in list(self._open.items()) if one is not None and one.thread is me), "")

    def told(self) -> list[dict[str, Any]]:
        """Those that are open, for a node that has not opened them."""
        return [{"name": name, **({} if one is None else one.told())} for name, one in self._open.items()]

    def control(self, questions: Mapping[str, object]) -> dict[str, Callable[[Envelope], None]]:
        """The handlers of what comes for them."""
        return {
            "execute": self.take,
            "interrupt": self.interrupt,
            "subshell": self.answer,
            **dict.fromkeys(questions, self.take),
        }

    def take(self, envelope: Envelope) -> None:
        """Something that one of them is to run or to answer, in its turn; the first makes its thread."""
        name = str(envelope.body.get("subshell", ""))
        if envelope.sequence:
            if envelope.sequence <= self._newest:  # a node that adopted this worker could not know that it is here
                return
            self._newest = envelope.sequence
        if name not in self._open:
            told = failure(envelope, "subshell_unknown", f"there is no subshell {name[:80]!r}")
            self._parts.link.answer(envelope, told)
            return
        subshell = self._open[name]
        if subshell is None:
            subshell = self._open[name] = Subshell(self._parts)
        subshell.put(envelope)

    def interrupt(self, envelope: Envelope, tries: int = TRIES) -> None:
        """Interrupt an execution that one of them has."""
        if self._parts.stdin.interrupt(envelope.execution):
            return
        there = [one for one in (*self._open.values(), *self._ending) if one is not None]
        done = [one.interrupts.interrupt(envelope.sequence) for one in there]
        if not all(done) and tries:
            self._parts.link.later(SOON, partial(self.interrupt, envelope, tries - 1))

    def answer(self, envelope: Envelope) -> None:
        """Open one, or close it, when it has done what it was given. Whether that may be, the node knows."""
        name = str(envelope.body.get("subshell", ""))
        if envelope.body.get("action") == "open":
            self._open.setdefault(name, None)  # it may be asked for again
        else:
            self._close(self._open.pop(name, None))
        reply = {"reply_to": envelope.id, "subshells": self.names}
        self._parts.link.answer(envelope, Envelope("subshell_reply", reply))

    def _close(self, subshell: Subshell | None) -> None:
        self._ending = [one for one in self._ending if one.thread.is_alive()]
        if subshell is not None:
            subshell.put(None)
            self._ending.append(subshell)


class Subshell:
    """One thread, its event loop, and what it is to do."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._pid = os.getpid()
        self._todo: queue.SimpleQueue[Envelope | None] = queue.SimpleQueue()
        self._bell = out_of_the_way(os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK))
        self._loop = AsideLoop()
        self.interrupts = AsideInterrupts()
        self._runner = self._make_runner()
        self._since: float | None = None
        figures.install()
        self.thread = threading.Thread(target=self._serve, name="capsule-subshell", daemon=True)
        self.thread.start()

    def put(self, envelope: Envelope | None) -> None:
        """Something to do; None: nothing more will come."""
        self._todo.put(envelope)
        os.eventfd_write(self._bell, 1)

    def told(self) -> dict[str, Any]:
        """The number of the cell that runs, or will run next, and for how many seconds it has run."""
        since = self._since
        return {
            "execution_count": self._runner.count,
            "seconds": 0.0 if since is None else time.monotonic() - since,
        }

    def _make_runner(self) -> AsideRunner:
        shell = self._parts.shell
        hook = AsideDisplayHook(shell)
        executors = ThreadedExecutor(self._loop), AsyncExecutor(self._loop, self.interrupts)
        runner = AsideRunner(shell, self.interrupts, executors, hook)
        runner.share(self._parts.runner)
        return runner

    def _serve(self) -> None:
        # The I/O thread's mask would be that of programs which code starts here. The system gives a signal to the main
        # thread as long as that takes it.
        system.unblock_signals()
        asyncio.set_event_loop(self._loop)
        figures.keep_apart_here()
        self._runner.serve_here()
        sleeping.sleep_by(self.interrupts)
        while True:
            self._loop.run_until_readable(self._bell)
            with suppress(BlockingIOError):
                os.eventfd_read(self._bell)
            while not self._todo.empty():
                envelope = self._todo.get()
                if envelope is None:
                    self._loop.end()
                    os.close(self._bell)
                    return
                self._do(envelope)

    def _do(self, envelope: Envelope) -> None:
        if envelope.type == "execute":
            self._execute(envelope)
        else:
            self._parts.reply(envelope)

    def _execute(self, envelope: Envelope) -> None:
        parts, body, serial = self._parts, envelope.body, envelope.sequence
        parts.publisher.name(serial, envelope.execution)
        parts.stdin.begin_aside(serial, allowed=body.get("allow_input", False))
        OWNER.set(serial)
        self._since = time.monotonic()
        said = body.get("comm")
        if said is not None:
            hear = partial(parts.comms.hear, said, envelope.buffers)
            answer = self._runner.call(serial, hear, payloads=body.get("payloads", False))
        else:
            answer = self._runner.run(cell_of(envelope))
        if os.getpid() != self._pid:
            parts.end_fork(answer)
        OWNER.set(0)
        self._since = None
        parts.stdin.end_aside(serial)
        parts.tell(envelope, answer)
