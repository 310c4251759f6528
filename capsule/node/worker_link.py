"""The node's end of all that connects it with a worker: both sockets, both pipes, the shared page."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING

from capsule.node.capture import Capture
from capsule.node.journal import Journal
from capsule.node.resources import Descriptors, Inherited
from capsule.node.survival import Survival
from capsule.stream import PeerBusyError, Stream
from capsule_protocol import page as shared
from capsule_protocol.codec import decode, encode
from capsule_protocol.errors import RemoteProtocolError

if TYPE_CHECKING:
    from pathlib import Path

    from capsule.node.adoption import Estate
    from capsule.node.merge import Merge
    from capsule_protocol.envelope import Envelope
    from capsule_protocol.limits import Limits

OnEnvelope = Callable[["Envelope"], None]
OnBroken = Callable[[RemoteProtocolError], None]


class Door:
    """Envelopes over a Unix stream socket that the worker has bound. Made unconnected."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, limits: Limits, on_envelope: OnEnvelope, on_broken: OnBroken
    ) -> None:
        self._limits = limits
        self._on_envelope = on_envelope
        self._on_broken = on_broken
        self._ending = False
        self._stream = Stream(loop, socket.socket(socket.AF_UNIX), limits, self._take, on_broken)
        self.disconnected = self._stream.disconnected

    def connect(self, path: Path) -> None:
        """Connect to the socket at a path and begin to read. A worker that is dead already has hung up."""
        self._stream.connect(str(path))

    def send(self, envelope: Envelope) -> None:
        """Send at once, or as soon as the worker reads; one that takes nothing for long is broken.

        Raises LocalProtocolError if it cannot be encoded.
        """
        try:
            self._stream.send(encode(envelope, self._limits))
        except PeerBusyError:
            self._on_broken(RemoteProtocolError("unexpected_message", "it takes no messages any more"))

    def pause(self) -> None:
        """Take no messages: the system holds a little, then the worker's sends block."""
        if not self._ending:
            self._stream.pause()

    def resume(self) -> None:
        """Take messages again."""
        self._stream.resume()

    def end(self) -> None:
        """Take all from now on, and pause no more: the worker is dead. What the system still holds is on its way."""
        self._ending = True
        self.resume()

    def drain_rest(self) -> None:
        """Take all that has arrived."""
        self._stream.drain_rest()

    def close(self) -> None:
        """Disconnect. Idempotent."""
        self._stream.close()

    def _take(self, frames: list[bytes]) -> None:
        try:
            self._on_envelope(decode(frames, self._limits))
        except RemoteProtocolError as error:
            self._on_broken(error)


class Link:
    """That of one worker. Its sockets are not connected yet, and of its pipes nothing is read.

    Raises OSError if there are no descriptors for it. With an estate it takes those that another node has left. One
    that is `lasting` has a journal, so that the worker may outlive this node.
    """

    def __init__(
        self,
        limits: Limits,
        merge: Merge,
        on_envelope: OnEnvelope,
        on_broken: OnBroken,
        estate: Estate | None,
        *,
        lasting: bool,
    ) -> None:
        loop = asyncio.get_running_loop()
        self.survival: Survival | None = None
        self.paused = False
        with ExitStack() as undo:  # descriptors may run out at any of these
            self.descriptors = Descriptors() if estate is None else Inherited(estate.descriptors)
            """What is the worker's, until it has it."""
            undo.callback(self.descriptors.close)
            self.page = shared.Page(self.descriptors.page)
            undo.callback(self.page.close)
            journal = None if estate is None else estate.journal
            if lasting and journal is None:
                journal = Journal.create()
            if journal is not None:
                undo.callback(journal.close)
                self.survival = Survival(loop, journal, merge)
            self.capture = Capture(loop, self.descriptors.take_reads(), self.page, merge, on_broken, journal)
            undo.callback(self.capture.close)
            self.shell = Door(loop, limits, on_envelope, on_broken)
            undo.callback(self.shell.close)
            self.control = Door(loop, limits, on_envelope, on_broken)
            undo.pop_all()

    def pause(self) -> None:
        """Read nothing more: the worker blocks once everything between is full."""
        self.paused = True
        self.capture.pause()
        self.shell.pause()
        self.control.pause()

    def resume(self) -> None:
        """Read again: first the verdicts, which may have no fence, so that what came behind them is not before them."""
        self.paused = False
        self.shell.resume()
        self.control.resume()
        self.capture.resume()

    def end(self) -> None:
        """The worker is dead: from now on, take all messages."""
        self.shell.end()
        self.control.end()

    def drain_rest(self) -> None:
        """Take all messages that have arrived."""
        self.shell.drain_rest()
        self.control.drain_rest()

    def close(self) -> None:
        """Let go of everything. Idempotent."""
        self.descriptors.close()
        self.shell.close()
        self.control.close()
        self.capture.close()
        if self.survival is not None:
            self.survival.close()
        self.page.close()
