"""What a worker says while nobody reads is heard in the order in which it was said."""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from capsule.node.merge import Merge
from capsule.node.worker_link import Door, Link
from capsule_protocol.codec import encode
from capsule_protocol.envelope import Envelope
from capsule_protocol.framing import pack
from capsule_protocol.limits import DEFAULT_LIMITS
from capsule_protocol.marks import FENCE, MESSAGE
from capsule_protocol.marks import pack as mark
from tests.unit.kernels.forked import LONG

pytestmark = pytest.mark.anyio

TOKEN = b"T" * 16
SERIAL = 1


class Worker:
    """The other end of a link, which the test plays, and what the node makes of it."""

    def __init__(self, directory: Path, undo: ExitStack) -> None:
        self.heard: list[object] = []
        self.all = asyncio.Event()
        self._merge = Merge(TOKEN, lambda owner, _stream, data: self._hear((owner, data)), self._hear)
        self._merge.newest = SERIAL
        self.link = Link(DEFAULT_LIMITS, self._merge, self._on_envelope, self._on_broken, None, lasting=False)
        undo.callback(self.link.close)
        self._shell = self._met(self.link.shell, directory / "shell.sock", undo)
        self._control = self._met(self.link.control, directory / "control.sock", undo)
        self.link.capture.start()

    def end_without_a_fence(self) -> None:
        """A verdict of who has seen both pipes empty."""
        self._say(self._shell, Envelope("result", {"fence": 0}))

    def show_in_a_thread(self, text: bytes) -> None:
        """A display, and then text, of what the execution has left behind."""
        stdout, stderr, _ = self.link.descriptors.given()
        for pipe in (stdout, stderr):
            os.write(pipe, mark(TOKEN, SERIAL, 1, FENCE | MESSAGE))
        os.write(stdout, text)
        self._say(self._control, Envelope("display", {"fence": 1}))

    def _say(self, peer: socket.socket, envelope: Envelope) -> None:
        peer.sendall(b"".join(pack(encode(envelope))))

    def _met(self, door: Door, path: Path, undo: ExitStack) -> socket.socket:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(str(path))
            listener.listen(1)
            door.connect(path)
            return undo.enter_context(listener.accept()[0])

    def _on_envelope(self, envelope: Envelope) -> None:
        self._merge.message(envelope.body["fence"], envelope.type, SERIAL)

    def _on_broken(self, error: Exception) -> None:
        raise error

    def _hear(self, what: object) -> None:
        self.heard.append(what)
        if len(self.heard) == 3:
            self.all.set()


@pytest.mark.parametrize("paused", [True, False])
async def test_what_code_left_behind_shows_while_nobody_reads_comes_behind_the_verdict(
    tmp_path: Path, paused: bool
) -> None:
    """Nobody reads while the link is paused, or the loop is busy."""
    with ExitStack() as undo:
        worker = Worker(tmp_path, undo)
        if paused:
            worker.link.pause()
        worker.end_without_a_fence()
        worker.show_in_a_thread(b"late")
        worker.link.resume()
        await asyncio.wait_for(worker.all.wait(), LONG)
    assert worker.heard == ["result", "display", (SERIAL, b"late")]
