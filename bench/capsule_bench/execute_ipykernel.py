"""Contender `ipykernel`: a kernel driven through jupyter_client's blocking client, as lean as its public API allows.

Request to verdict is from sending `execute_request` until both the idle status and `execute_reply` are in, all of the
execution's output before them. Nothing sleeps or polls: each wait is a wait for the next message of a channel.
"""

from __future__ import annotations

import queue
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jupyter_client.manager import KernelManager

from capsule_bench import cells
from capsule_bench.figures import milliseconds, per_second
from capsule_bench.machine import memory
from capsule_bench.model import Load, Measured

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from traitlets.config import Config

PATIENCE = 60.0
LOOK = 1.0
"""Seconds without a reply after which it is looked whether a kernel could start at all."""
TAKEN = b"Address already in use"
# A history file locked by another kernel would add seconds to a start.
ARGUMENTS = ["--HistoryManager.enabled=False"]


class PortTakenError(Exception):
    """A kernel could not have one of its ports.

    jupyter_client chooses them, and lets go of them for the kernel to bind; meanwhile the system may give them to
    others. Each ipykernel has one more that it is given so: of 38 times that 20 of them started at once, two had one
    that could not start. It may not even end then.
    """


@dataclass(slots=True)
class Reply:
    """What one execution brought: the `execute_reply`, stdout in pieces, and the text of the value."""

    content: dict[str, Any] = field(default_factory=dict)
    pieces: list[str] = field(default_factory=list)
    text: str = ""


class Kernel:
    """A running kernel and its client; by `config` it may be another's."""

    def __init__(self, config: Config | None = None) -> None:
        self.manager = KernelManager(kernel_name="python3", config=config)
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the kernel
        try:
            self.manager.start_kernel(extra_arguments=ARGUMENTS, stderr=self._errors)
        except BaseException:
            self._errors.close()
            raise
        self.client = self.manager.client()
        self.client.start_channels(stdin=False, hb=False)

    def close(self) -> None:
        """End the kernel."""
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)
        self._errors.close()

    def send(self, code: str) -> str:
        """Send a request; answers its id."""
        sent: str = self.client.execute(code, allow_stdin=False)
        return sent

    def next_output(self) -> tuple[str, str, dict[str, Any]]:
        """The next message on IOPub: id of its request, type, content."""
        message = self.client.iopub_channel.get_msg(timeout=PATIENCE)
        return message["parent_header"].get("msg_id", ""), message["msg_type"], message["content"]

    def next_reply(self) -> tuple[str, dict[str, Any]]:
        """The next reply: id of its request, content."""
        message = self.client.shell_channel.get_msg(timeout=PATIENCE)
        return message["parent_header"]["msg_id"], message["content"]

    def first_reply(self) -> dict[str, Any]:
        """The content of the first reply. Raises PortTakenError if there will be none."""
        until = time.monotonic() + PATIENCE
        while True:
            try:
                content: dict[str, Any] = self.client.shell_channel.get_msg(timeout=LOOK)["content"]
            except queue.Empty:
                # Opened anew: the kernel writes where this descriptor of ours stands.
                if TAKEN in Path(f"/proc/self/fd/{self._errors.fileno()}").read_bytes():
                    raise PortTakenError("somebody else has a port that was chosen for the kernel") from None
                if time.monotonic() >= until:
                    raise
            else:
                return content

    def run(self, code: str) -> Reply:
        """One execution, all of it."""
        return self.drain(self.send(code))

    def drain(self, request: str) -> Reply:
        """Everything that the request brings until it is over."""
        reply = Reply()
        while True:
            parent, kind, content = self.next_output()
            if parent != request:
                continue
            if kind == "stream" and content["name"] == "stdout":
                reply.pieces.append(content["text"])
            elif kind == "execute_result":
                reply.text = content["data"]["text/plain"]
            elif kind == "status" and content["execution_state"] == "idle":
                break
        answered = ""
        while answered != request:
            answered, reply.content = self.next_reply()
        return reply

    def run_ok(self, code: str, text: str = "") -> Reply:
        """One execution that must end well and show `text`."""
        reply = self.run(code)
        cells.expect(f"status of {code!r}", reply.content["status"], "ok")
        cells.expect(f"value of {code!r}", reply.text, text)
        return reply


@contextmanager
def kernel(config: Config | None = None) -> Iterator[Kernel]:
    """A kernel that has answered, so that what follows is not part of its start."""
    running = Kernel(config)
    try:
        # Its answer tells that IOPub is subscribed too, which a client cannot see otherwise.
        running.client.wait_for_ready(timeout=PATIENCE)
        running.run_ok(cells.IMPORT_ASYNCIO)
        yield running
    finally:
        running.close()


def one_plus_one(load: Load) -> Measured:
    """Milliseconds for `1+1`."""
    return _repeat(load, cells.ONE_PLUS_ONE, milliseconds, text="2")


def sleep_zero(load: Load) -> Measured:
    """Milliseconds for a cell that awaits."""
    return _repeat(load, cells.SLEEP_ZERO, milliseconds)


def pipelined(load: Load) -> Measured:
    """Executions per second with a window of requests in flight."""
    return _sample(load, pipeline, per_second(load.size))


def interrupt(load: Load) -> Measured:
    """Milliseconds from the interrupt of a busy loop until its verdict."""
    return _sample(load, lambda running, _: interrupted(running, cells.SPIN), milliseconds)


def printed_lines(load: Load) -> Measured:
    """Lines per second, all of them received."""
    code, wanted = cells.lines(load.size)
    return _repeat(load, code, per_second(load.size), stdout=wanted)


def bulk_output(load: Load) -> Measured:
    """Megabytes per second, all of them received."""
    code, wanted = cells.megabytes(load.size)
    return _repeat(load, code, per_second(load.size), stdout=wanted)


def big_result(load: Load) -> Measured:
    """Milliseconds for a cell whose value is a long string."""
    code, wanted = cells.long_string(load.size)
    return _repeat(load, code, milliseconds, text=wanted)


def start(load: Load) -> Measured:
    """Milliseconds from nothing to the first `execute_reply`."""
    values = []
    for _ in range(load.warmup + load.samples):
        begin = time.perf_counter()
        running = Kernel()
        try:
            first_reply(running)
            values.append(milliseconds(time.perf_counter() - begin))
            used = memory()
        finally:
            running.close()
    return Measured(values[load.warmup :], used)


def first_reply(running: Kernel) -> None:
    """Wait for it. It carries a value itself: IOPub may not be subscribed yet, and waiting for it would cost more."""
    running.client.execute("", user_expressions={"value": cells.ONE_PLUS_ONE}, allow_stdin=False)
    content = running.first_reply()
    cells.expect("first value", content["user_expressions"]["value"]["data"]["text/plain"], "2")


def _repeat(load: Load, code: str, figure: Callable[[float], float], *, text: str = "", stdout: str = "") -> Measured:
    def once(running: Kernel, _: int) -> float:
        begin = time.perf_counter()
        reply = running.run(code)
        taken = time.perf_counter() - begin
        cells.expect("status", reply.content["status"], "ok")
        cells.expect("value", reply.text, text)
        cells.expect("output", "".join(reply.pieces), stdout)
        return taken

    return _sample(load, once, figure)


def _sample(load: Load, once: Callable[[Kernel, int], float], figure: Callable[[float], float]) -> Measured:
    """Take the seconds of `once` again and again in one kernel; `figure` makes a sample of each."""
    with kernel() as running:
        values = [figure(once(running, load.size)) for _ in range(load.warmup + load.samples)]
        return Measured(values[load.warmup :], memory())


def pipeline(running: Kernel, size: int) -> float:
    """Seconds for so many executions."""
    running.run_ok(cells.COUNT_FROM_ZERO)
    begin = time.perf_counter()
    waiting = {running.send(cells.COUNT) for _ in range(min(size, cells.WINDOW))}
    unsent = size - len(waiting)
    while waiting:
        parent, kind, content = running.next_output()
        if parent not in waiting or kind != "status" or content["execution_state"] != "idle":
            continue
        waiting.remove(parent)
        if unsent:
            waiting.add(running.send(cells.COUNT))
            unsent -= 1
        # One reply for each idle, or they would pile up to the socket's limit and be dropped.
        cells.expect("status", running.next_reply()[1]["status"], "ok")
    taken = time.perf_counter() - begin
    running.run_ok(cells.COUNTED, str(size))
    return taken


def interrupted(running: Kernel, code: str) -> float:
    """Seconds from the interrupt of this code until its verdict."""
    request = running.send(code)
    while running.next_output()[:2] != (request, "stream"):
        pass
    begin = time.perf_counter()
    running.manager.interrupt_kernel()
    reply = running.drain(request)
    taken = time.perf_counter() - begin
    cells.expect("verdict", reply.content.get("ename"), "KeyboardInterrupt")
    running.run_ok(cells.ONE_PLUS_ONE, "2")
    return taken
