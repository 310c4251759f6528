"""The worker's parts around real pipes, a real page and real sockets, with the node's ends at hand."""

from __future__ import annotations

import fcntl
import os
import select
import shutil
import socket
import tempfile
from typing import Any

from capsule_kernels import wiring, worker
from capsule_kernels.attribution import OWNER
from capsule_kernels.capture import Outlet
from capsule_kernels.cells import Cell
from capsule_kernels.interrupts import Interrupts
from capsule_kernels.link import Link
from capsule_kernels.prepared import Prepared
from capsule_protocol import codec
from capsule_protocol.envelope import Envelope
from capsule_protocol.framing import NEED_DATA, FrameBuffer, pack
from capsule_protocol.limits import Limits
from capsule_protocol.marks import FLUSHED, Mark, Splitter
from capsule_protocol.page import FLOOR, INTERRUPT_SIGNAL, TARGET, Page, create

TOKEN = bytes(range(200, 216))
PATIENCE = 30_000
"""Milliseconds that no wait for a message takes unless the test fails."""


class Pipes:
    """Both output pipes with an outlet on them; what the node would read, as bytes and marks."""

    def __init__(self, capacity: int | None = None) -> None:
        self.page = Page(create())
        self.interrupts = Interrupts(self.page)
        self.readers: list[int] = []
        self.writers: list[int] = []
        for _ in range(2):
            reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            if capacity is not None:
                fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, capacity)
            self.readers.append(reader)
            self.writers.append(writer)
        self.outlet = Outlet((self.writers[0], self.writers[1]), self.page, TOKEN, self.interrupts)
        self.outlet.watch_forks()
        self.splitters = [Splitter(TOKEN), Splitter(TOKEN)]

    def take_descriptors(self) -> None:
        """Make descriptors 1 and 2 of the process the write ends, blocking, as a worker's are."""
        for number, writer in enumerate(self.writers, start=1):
            opened = os.open(f"/proc/self/fd/{writer}", os.O_WRONLY)
            os.dup2(opened, number)
            os.close(opened)

    def raw(self, stream: int) -> bytes:
        """What stands in a pipe."""
        found = b""
        while True:
            try:
                data = os.read(self.readers[stream], 2**20)
            except BlockingIOError:
                return found
            if not data:
                return found
            found += data

    def parts(self, stream: int) -> list[bytes | Mark]:
        """What stands in a pipe, split."""
        return self.splitters[stream].feed(self.raw(stream))

    def marks(self, stream: int) -> list[Mark]:
        """The marks that stand in a pipe, without those that tell of a flush."""
        return [part for part in self.parts(stream) if isinstance(part, Mark) and part.flags != FLUSHED]

    def text(self, stream: int) -> bytes:
        """The bytes that stand in a pipe, without the marks."""
        return b"".join(part for part in self.parts(stream) if isinstance(part, bytes))

    def owned(self, stream: int) -> dict[int, bytes]:
        """The bytes in a pipe by their owners, as the node tells them: FLOOR's, up to a mark."""
        owner = self.page.get(FLOOR)
        found: dict[int, bytes] = {}
        for part in self.parts(stream):
            if isinstance(part, Mark):
                owner = part.owner
            else:
                found[owner] = found.get(owner, b"") + part
        return found

    def fill(self, stream: int) -> int:
        """Fill a pipe to the brim; the answer is how many bytes it took."""
        size = 0
        for chunk in (4096, 1):
            while True:
                try:
                    size += os.write(self.writers[stream], b"." * chunk)
                except BlockingIOError:
                    break
        return size

    def interrupt(self, serial: int, signals: int = 1) -> None:
        """What the node does to interrupt an execution."""
        self.page.set(TARGET, serial)
        for _ in range(signals):
            os.kill(os.getpid(), INTERRUPT_SIGNAL)


class NodeEnd:
    """The node's end of one of the worker's sockets."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.connect(path)
        self._incoming = FrameBuffer()

    def send(self, envelope: Envelope) -> None:
        """Send as the node."""
        self._socket.sendall(b"".join(pack(codec.encode(envelope))))

    def poll(self, milliseconds: int) -> bool:
        """Whether something new comes in that time."""
        return bool(select.select([self._socket], [], [], milliseconds / 1000)[0])

    def message(self) -> Envelope:
        """The next message."""
        while (frames := self._incoming.next_message()) is NEED_DATA:
            assert self.poll(PATIENCE), "no message came"
            data = self._socket.recv(2**16)
            assert data, "the worker hung up"
            self._incoming.feed(data)
        return codec.decode(frames)

    def close(self) -> None:
        """Hang up."""
        self._socket.close()


class Linked(Pipes):
    """The same with a link, and the node's ends of both its sockets. If it is `lasting`, more nodes may come."""

    def __init__(self, *, lasting: bool = False, **limits: Any) -> None:
        super().__init__()
        self.interrupts.install()
        self.directory = tempfile.mkdtemp(prefix="rig-")
        self.link = Link(Limits(**limits), self.outlet, self.interrupts, lasting=lasting)
        self.link.bind(self.directory)
        self.shell = NodeEnd(f"{self.directory}/shell.sock")
        self.control = NodeEnd(f"{self.directory}/control.sock")
        self.link.accept()

    def send(self, end: NodeEnd, kind: str, body: dict[str, Any], **header: Any) -> None:
        """Send as the node."""
        end.send(Envelope(kind, body, **header))

    def message(self, end: NodeEnd) -> Envelope:
        """The next message that the node gets on a socket."""
        return end.message()

    def succeed(self) -> None:
        """The node dies, and another one connects to the control socket."""
        self.shell.close()
        self.control.close()
        self.control = NodeEnd(f"{self.directory}/control.sock")

    def close(self) -> None:
        """Remove the sockets' directory, which is all that outlives the process."""
        shutil.rmtree(self.directory)


class Session(Linked):
    """A whole worker but for its loop over messages: cells are run by hand."""

    def __init__(self, **limits: Any) -> None:
        super().__init__(**limits)
        self.take_descriptors()
        assert worker._shell is not None
        self.python = worker._shell
        prepared = Prepared(self.python, self.interrupts)
        self.engine = wiring.assemble(prepared, self.link, self.outlet)
        wiring.install(self.engine)
        self.engine.loop.open()
        self.serial = 0

    def run(self, code: str, **options: Any) -> dict[str, Any]:
        """Run a cell; the body of its verdict."""
        self.serial += 1
        self.engine.publisher.begin(self.serial, f"x_{self.serial}")
        self.outlet.begin(self.serial)
        OWNER.set(self.serial)
        body = self.engine.runner.run(Cell(self.serial, code, **options))
        OWNER.set(0)
        self.outlet.flush()
        return body

    def value(self, code: str, **options: Any) -> str | None:
        """Run a cell that must succeed; the plain text of its value, None if it shows none."""
        body = self.run(code, **options)
        assert body["verdict"] == "ok", body["traceback"]
        text: str | None = body["data"].get("text/plain")
        return text

    def error(self, code: str, **options: Any) -> dict[str, Any]:
        """Run a cell that must fail."""
        body = self.run(code, **options)
        assert body["verdict"] != "ok", body
        return body
