"""One worker and all that the node holds of it: its box, the link to it, and what it is heard to say."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from capsule.node.handshake import Greeting
from capsule.node.hearing import LAST_WORDS_BYTES, PATIENCE, Hearing, Owner
from capsule.node.journal import VERSION, name_of
from capsule.node.memory import own_bytes
from capsule.node.replay import Told
from capsule.node.resources import box_directory, is_shortage, no_descriptor, remove_directory
from capsule.node.verdicts import Loss, LossCause
from capsule.node.worker_link import Link
from capsule_protocol import page as shared
from capsule_protocol.errors import CapsuleError, RemoteProtocolError, WorkerLost
from capsule_protocol.limits import DEFAULT_LIMITS
from capsule_protocol.marks import TOKEN_SIZE, TOKEN_START
from capsule_protocol.messages import parse

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from capsule.node.adoption import Estate
    from capsule.node.box import Box, ExitStatus
    from capsule.node.clock import Reading
    from capsule.node.execution import Execution
    from capsule.node.launch import Zygote
    from capsule.node.scratch import Scratch
    from capsule.node.survival import Survival
    from capsule_protocol.envelope import Envelope
    from capsule_protocol.messages.link import Ready
    from capsule_protocol.negotiation import Agreement

__all__ = ["LAST_WORDS_BYTES", "Owner", "Place", "Preparation", "Worker"]

T = TypeVar("T")

SETTLE = 0.5
"""Seconds that a dead worker's last words may take to arrive; they are here already, as a rule."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a worker starts: what does not depend on its session."""

    zygote: Zygote
    directory: Path | None


@dataclass(frozen=True, slots=True)
class Preparation:
    """What is settled before a worker has a session: how much a message may hold, the code that warms it up."""

    message_bytes: int = DEFAULT_LIMITS.message_bytes
    warmup: str = ""
    lasting: bool = False
    """It may outlive its node."""


class Worker:
    """Made by `prepare`, for nobody yet; `open` gives it to a session. Somebody runs `watch` from the start on.

    Its end is told by `on_lost`, once; `died` is done just before, and `gone` says that nothing of it is left.
    """

    on_full: Callable[[], object] | None = None
    """Called when the journal is full: nothing is read until something has been dealt with."""

    def __init__(self, preparation: Preparation, estate: Estate | None = None) -> None:
        loop = asyncio.get_running_loop()
        self._loop = loop
        self._preparation = preparation
        self._token = TOKEN_START + secrets.token_bytes(TOKEN_SIZE - len(TOKEN_START))
        if estate is not None:
            self._token = estate.token
        self._limits = replace(DEFAULT_LIMITS, message_bytes=preparation.message_bytes)
        self.cause: LossCause | None = None
        self._why = ""
        self._greeting = Greeting(loop)
        self._box: Box | None = None
        self.directory = Path()
        """That of its box."""
        self._hearing = Hearing(self, self._token, self._greeting, loop)
        merge, lasting = self._hearing.merge, preparation.lasting
        self._link = Link(self._limits, merge, self._on_envelope, self.on_violation, estate, lasting=lasting)
        self._link.capture.on_full = self._on_full
        self._hearing.link = self._link
        self.survival: Survival | None = self._link.survival
        """If it may outlive this node."""
        self._counted = False
        self.serial = 0
        self.died: asyncio.Future[str] = loop.create_future()
        self.gone = asyncio.Event()
        self.drain_timeout = 10 * PATIENCE
        """Seconds that a verdict may wait for output that the pipes do not bring; its session sets it."""
        self.watching: asyncio.Task[None] | None = None
        self.agreement: Agreement
        self.ready: Ready

    @property
    def pid(self) -> int:
        """The process id of the worker."""
        return self._box.worker_pid if self._box is not None else 0

    @property
    def box_pid(self) -> int:
        """The process id of its box."""
        return self._box.pid if self._box is not None else 0

    @property
    def scratch(self) -> Scratch:
        """The directory of its box, with the session's files."""
        assert self._box is not None
        return self._box.scratch

    @property
    def sandbox(self) -> str:
        """The level that its code is held to."""
        return self._box.sandbox if self._box is not None else ""

    @property
    def replaying(self) -> bool:
        """Whether it tells again what it has told a node that died."""
        return self.survival is not None and self.survival.replaying

    @property
    def alive(self) -> bool:
        """Whether its process lives, asked of the system."""
        return self._box is not None and self._box.has_worker()

    @classmethod
    async def prepare(cls, place: Place, preparation: Preparation) -> Worker:
        """A worker that has greeted, and run its warm-up code.

        Raises WorkerLost, EnvironmentFailed, or SessionError `descriptors_exhausted`.

        There is no time limit: cancel it. After an error or a cancellation nothing is left.
        """
        try:
            worker = cls(preparation)
        except OSError as error:
            raise _not_started(error) from error
        try:
            await worker._launch(place)
            worker.agreement = await worker._unless_exited(
                lambda exited: worker._greeting.hello(worker._link.shell.send, worker._limits, exited)
            )
            worker._link.capture.skip()
        except BaseException as error:
            if isinstance(error, WorkerLost):
                worker._explain(error)
            await worker._abort()
            if isinstance(error, OSError):  # no descriptor is left, no room on the disk
                raise _not_started(error) from error
            raise
        worker._hearing.last_words = b""
        return worker

    async def bequeath(self, told: Mapping[str, Any]) -> None:
        """Let it outlive this node from here on; `told` says for how long and for whom. WorkerLost if it ends."""
        assert self.survival is not None
        assert self._box is not None
        heritage = {
            "version": VERSION,
            "token": self._token,
            "message_bytes": self._limits.message_bytes,
            "ready": self.ready.model_dump(),
            "sandbox": self._box.sandbox,
        }
        given = [*self._box.scratch.descriptors, *self._link.capture.descriptors, *self.survival.journal.descriptors]
        await self._box.linger({**told, "told": heritage}, given)
        self.survival.journal.release_memory()

    async def open(
        self, owner: Owner, opening: Envelope, *, memory_bytes: int | None = None, max_processes: int | None = None
    ) -> None:
        """Make it the worker of a session. Raises WorkerLost, or what the worker says against the options."""
        if self.died.done():
            raise WorkerLost("worker_lost", "the worker ended while nobody used it", retryable=True)
        assert self._box is not None
        if memory_bytes is not None or max_processes is not None:
            self._box.limit(memory_bytes=memory_bytes, max_processes=max_processes)
        self._counted = max_processes is not None
        self.ready = await self._unless_exited(
            lambda exited: self._greeting.open(self._link.shell.send, opening, exited)
        )
        if self.died.done():
            raise WorkerLost("worker_lost", "the worker ended when its session was open", retryable=True)
        self._hearing.owner = owner

    def memory(self) -> int:
        """The bytes that belong to the worker process alone."""
        return own_bytes(self.pid)

    async def close(self) -> None:
        """End it and wait until nothing is left."""
        self.end("close")
        await self.gone.wait()

    def next_serial(self) -> int:
        """The serial of the next execution."""
        return self.serial + 1

    def execute(self, envelope: Envelope, *, aside: bool = False) -> None:
        """Send an execution; its serial is the envelope's sequence. `aside`: it does not run on the main thread."""
        self.serial = self._hearing.merge.newest = max(self.serial, envelope.sequence)
        self._hearing.serials[envelope.execution] = envelope.sequence
        if self.survival is not None:
            self.survival.journal.dispatch(envelope.sequence, name_of(envelope.execution))
        if self._counted and self._box is not None:
            self._box.expect()
        (self._link.control if aside else self._link.shell).send(envelope)

    def left(self, _execution: Execution) -> float | None:
        """The seconds that are left of the time of an execution which an earlier node has begun: none has."""
        return None

    def note_time(self, execution: str, reading: Reading) -> None:
        """How the clock of an execution that it has stands, for the next node."""
        if self.survival is not None and not self.gone.is_set():
            self.survival.journal.set_time(name_of(execution), reading)

    def send(self, envelope: Envelope) -> None:
        """Send on the socket that waits for the main thread."""
        self._link.shell.send(envelope)

    def send_urgent(self, envelope: Envelope) -> None:
        """Send on the socket that is served also while code runs."""
        self._link.control.send(envelope)

    def interrupt(self, serial: int, *, timed_out: bool = False) -> None:
        """Interrupt an execution; one that has ended by then is not harmed, nor is any other."""
        if self._box is None or self.gone.is_set():
            return
        self._link.page.set(shared.TARGET, serial)
        if timed_out:
            self._link.page.set(shared.TIMED_OUT, serial)
        self._box.signal_worker(shared.INTERRUPT_SIGNAL)
        self._box.interrupt_children(serial)

    def interrupt_question(self, question: str) -> None:
        """Interrupt the answer to a question of this id; if it has been given, nothing happens."""
        if self._box is not None and not self.gone.is_set():
            self._link.page.set(shared.TARGET, shared.target_of(question))
            self._box.signal_worker(shared.INTERRUPT_SIGNAL)

    def started(self, serial: int) -> bool:
        """Whether the worker says that it began this execution."""
        return serial <= self._link.page.get(shared.STARTED)

    def deal(self, position: int, state: dict[str, Any]) -> None:
        """What was recorded up to this position has been dealt with for good."""
        if self.survival is not None and not self.gone.is_set():
            self.survival.deal(position, state, self._link.control.send)
            self._link.capture.settle()

    def abandon_journal(self) -> None:
        """More was read than it holds, and nothing of it can be dealt with: read on without it."""
        if self.survival is not None:
            self.survival.journal.abandon()
            self._link.capture.settle()

    def pause(self) -> None:
        """Read nothing more: the worker blocks once everything between is full."""
        self._link.pause()

    def resume(self) -> None:
        """Read again."""
        self._link.resume()

    def kill(self, cause: LossCause, why: str = "") -> None:
        """End it; the first cause counts."""
        if self.cause is None:
            self.cause, self._why = cause, why
        if self._box is not None:
            self._box.kill()

    def end(self, cause: LossCause) -> None:
        """End it with its whole box."""
        self.kill(cause)
        if self._box is not None:
            self._box.close()

    def on_violation(self, error: RemoteProtocolError) -> None:
        """It has broken the protocol: end it."""
        self.kill("violation", error.message)
        self._greeting.fail(error)

    async def watch(self) -> None:
        """Wait for its end, tell it, and clean up."""
        box = self._box
        assert box is not None
        gone = asyncio.ensure_future(box.gone())
        try:
            status = await box.exited()
            self.died.set_result(str(status))
            self._link.end()
            hung_up = self._link.shell.disconnected, self._link.control.disconnected
            await asyncio.wait([gone, *hung_up], timeout=SETTLE)
            self._link.drain_rest()
            self._finish()
            if self._hearing.owner is not None:
                self._hearing.owner.on_lost(Loss(self.cause or "exit", status, self._why))
            await gone
        finally:
            gone.cancel()
            box.close()
            self._release()

    def _finish(self) -> None:
        """It is dead, and all has arrived: deliver what was held back."""
        try:
            self._link.capture.finish()
        except RemoteProtocolError as error:  # of a message that had waited for its place
            self.on_violation(error)

    async def _launch(self, place: Place) -> None:
        directory = self.directory = box_directory(place.directory, place.zygote.pid)
        spec = {
            "dir": str(directory),
            "token": self._token,
            "limits": {"message_bytes": self._limits.message_bytes},
            "warmup": self._preparation.warmup,
            "lasting": self._preparation.lasting,
        }
        try:
            self._box = await place.zygote.fork(spec, self._link.descriptors.given())
        except BaseException:
            remove_directory(directory)
            raise
        self._link.descriptors.close()
        await self._box.bound()
        self._link.capture.start()
        self._link.shell.connect(directory / "shell.sock")
        self._link.control.connect(directory / "control.sock")
        self._link.shell.disconnected.add_done_callback(self._on_disconnected)
        self._link.control.disconnected.add_done_callback(self._on_disconnected)

    async def _unless_exited(self, ask: Callable[[asyncio.Future[ExitStatus]], Awaitable[T]]) -> T:
        """Ask the worker something that its end answers too."""
        assert self._box is not None
        exited = asyncio.ensure_future(self._box.exited())
        try:
            return await ask(exited)
        finally:
            exited.cancel()

    def _explain(self, error: WorkerLost) -> None:
        """Add to the error what the worker, which is dead, has said last: a traceback, as a rule."""
        self._link.capture.finish()
        text = self._hearing.last_words.decode(errors="replace").strip()
        if text:
            error.message += f": {text.splitlines()[-1]}"
            error.details["traceback"] = text

    async def _abort(self) -> None:
        """Undo a start that failed."""
        self._link.descriptors.close()
        try:
            if self._box is not None:
                self._box.close()
                self._box.kill()
                await self._box.gone()
        finally:  # who is cancelled once more does not wait for it
            self._release()

    def _release(self) -> None:
        if self._box is not None:
            self._box.release()
        self._link.close()
        self._hearing.close()
        self.gone.set()

    def _on_envelope(self, envelope: Envelope) -> None:
        message = parse(envelope)
        if self.survival is not None and envelope.sequence:
            self.survival.admit(envelope.sequence)
        self._hearing.deliver(Told(message, envelope))

    def _on_full(self) -> None:
        if self.on_full is not None:
            self.on_full()

    def _on_disconnected(self, _future: asyncio.Future[None]) -> None:
        """A worker that hangs up dies at the same time, or is of no use any more."""
        if not self.gone.is_set():
            self._loop.call_later(SETTLE, self._still_there)

    def _still_there(self) -> None:
        if not self.gone.is_set():
            self.kill("violation", "it broke its link")


def _not_started(error: OSError) -> CapsuleError:
    if is_shortage(error):
        return no_descriptor()
    return WorkerLost("worker_start_failed", f"the worker could not be started: {error}")
