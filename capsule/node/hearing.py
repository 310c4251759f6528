"""What a worker says: each thing in its place among the others, and a verdict only behind all output."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from capsule.node.journal import GIVEN_UP, MESSAGE, SETTLED, name_of
from capsule.node.merge import Merge
from capsule_protocol.errors import RemoteProtocolError
from capsule_protocol.messages.execution import Error, Result

if TYPE_CHECKING:
    import asyncio

    from capsule.node.handshake import Greeting
    from capsule.node.replay import Told
    from capsule.node.verdicts import Loss
    from capsule.node.worker import Worker
    from capsule.node.worker_link import Link
    from capsule_protocol.envelope import Envelope
    from capsule_protocol.messages import Message

PATIENCE = 1.0
"""Seconds after which a verdict no longer waits for a message that was announced before it."""
STDERR = 1
LAST_WORDS_BYTES = 8 * 1024
"""So much is told of what a worker that did not start has written to its stderr; its end, if there is more."""


class Owner(Protocol):
    """What a worker tells its session."""

    def on_output(self, serial: int, stream: int, data: bytes) -> None:
        """Bytes of a pipe."""

    def on_event(self, message: Message, envelope: Envelope) -> None:
        """A message that belongs to the stream of an execution, in its place."""

    def on_message(self, message: Message, envelope: Envelope) -> None:
        """Any other message."""

    def on_lost(self, loss: Loss) -> None:
        """The worker has ended, and all that it said has been told."""


class Hearing:
    """That of one worker: its merge, and who is told what comes out of it. Once made, it is given its link."""

    link: Link

    def __init__(self, worker: Worker, token: bytes, greeting: Greeting, loop: asyncio.AbstractEventLoop) -> None:
        self.merge = Merge(token, self._on_output, self._on_tied)
        self.owner: Owner | None = None
        self.serials: dict[str, int] = {}
        """Of the executions that it has, by id."""
        self.last_words = b""
        """What it has written to stderr while nobody owned it."""
        self._worker = worker
        self._greeting = greeting
        self._loop = loop
        self._doubted: asyncio.TimerHandle | None = None
        self._undrained = 0.0

    def deliver(self, told: Told) -> None:
        """A message has come: its place may be now, or later. Raises RemoteProtocolError."""
        message, envelope = told
        fence = getattr(message, "fence", None)
        if fence is not None:
            merge, capture, survival = self.merge, self.link.capture, self.link.survival
            if fence == 0 and merge.unsettled and not self._worker.replaying and capture.drained():
                if survival is not None:
                    survival.note(SETTLED)
                merge.settle()
            if survival is not None and envelope.sequence:
                survival.note(MESSAGE, envelope.sequence)
            merge.message(fence, told, self.serials.get(envelope.execution, 0))
            capture.settle()
            # A verdict that had no need of a fence may still stand behind one that announced what never comes.
            last = fence or merge.newest_fence
            if last > merge.passed and isinstance(message, Result | Error):
                self._doubt(last)
        elif not self._greeting.take(message, envelope) and self.owner is not None:
            self.owner.on_message(message, envelope)

    def close(self) -> None:
        """Nothing more is waited for. Idempotent."""
        if self._doubted is not None:
            self._doubted.cancel()

    # --- out of the merge ---

    def _on_output(self, serial: int, stream: int, data: bytes) -> None:
        if self.owner is not None:
            self.owner.on_output(serial, stream, data)
        elif stream == STDERR:  # of use to nobody, unless the worker does not start
            self.last_words = (self.last_words + data)[-LAST_WORDS_BYTES:]

    def _on_tied(self, told: Told) -> None:
        message, envelope = told
        if isinstance(message, Result | Error):
            self.serials.pop(envelope.execution, None)
            if self.link.survival is not None:
                self.link.survival.journal.release(name_of(envelope.execution))
        if self._worker.cause == "drain" and isinstance(message, Result | Error):
            return  # without its output it is no verdict; the loss of the worker gives one
        if not self._greeting.take(message, envelope) and self.owner is not None:
            self.owner.on_event(message, envelope)

    # --- a verdict that waits for output ---

    def _doubt(self, fence: int) -> None:
        """A verdict waits for its fence: see to it that it does not wait for what never comes."""
        if self._doubted is None:
            self._doubted = self._loop.call_later(min(PATIENCE, self._worker.drain_timeout), self._insist, fence)

    def _insist(self, fence: int) -> None:
        self._doubted = None
        worker, link, limit = self._worker, self.link, self._worker.drain_timeout
        if worker.gone.is_set() or fence <= self.merge.passed:
            return
        if link.capture.drained() and not link.paused and not worker.replaying:
            self._give_up(fence)
            if fence > self.merge.passed:
                self._undrained += min(PATIENCE, limit)
        if fence <= self.merge.passed:
            self._undrained = 0.0
        elif self._undrained >= limit:
            worker.kill("drain", f"the output of the code was not handed over within drain_timeout={limit:g} s")
        else:
            self._doubt(fence)

    def _give_up(self, fence: int) -> None:
        """Both pipes are empty: a message that was announced, and is not here, does not come any more."""
        if self.link.survival is not None:
            self.link.survival.note(GIVEN_UP, fence)
        try:
            self.merge.give_up(fence)
        except RemoteProtocolError as error:
            self._worker.on_violation(error)
