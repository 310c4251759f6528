"""The worker's two sockets: `shell` belongs to the main thread, `control` to the I/O thread.

Execution travels on the shell socket without a change of threads. Heartbeats, answers to `input()`, cancellations and
what other threads send go over the control socket, so they pass while a cell runs.

Where boxes outlive their nodes, the node that adopts this one greets on the control socket, because a cell may run. It
gets what the dead one had not confirmed, and the main thread turns to its shell socket when it next looks for work.
"""

from __future__ import annotations

import os
import queue
import select
import signal
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from capsule_kernels import system
from capsule_kernels.capture import HOLD, Outlet
from capsule_kernels.channel import Channel, out_of_the_way
from capsule_kernels.kept import LARGEST, UNSENT, Kept
from capsule_protocol import codec
from capsule_protocol.envelope import Envelope
from capsule_protocol.page import INTERRUPT_SIGNAL

if TYPE_CHECKING:
    from capsule_kernels.interrupts import Interrupts
    from capsule_protocol.limits import Limits

OUTGOING = 16
"""Messages of other threads that may wait for the I/O thread; a thread that sends more waits."""

SOON = 0.001
"""Seconds after which a signal is sent that was asked for from within its handler, which is left by then."""

Handler = Callable[[Envelope], object]


class Link:
    """`bind` makes both sockets, `accept` waits for the node, `start` runs the I/O thread."""

    _shell: Channel
    _control: Channel
    _room: int
    _wake: int

    def __init__(self, limits: Limits, outlet: Outlet, interrupts: Interrupts, *, lasting: bool = False) -> None:
        self._limits = limits
        self._outlet = outlet
        self._interrupts = interrupts
        self._main = threading.get_ident()
        self._lasting = lasting
        self._kept = Kept() if lasting else None
        self._node = 1  # which one it is that messages are sent to: the last that has greeted
        self._greeter = 1  # and which connection of the control socket is its
        self._resend = False
        self._unanswered: set[str] = set()  # what the node has asked on the control socket
        # Both may be used in the midst of themselves: the garbage collector runs user code anywhere, which may send.
        self._outgoing: queue.SimpleQueue[Envelope] = queue.SimpleQueue()
        self._io = 0
        self._flush_asked = False
        self._signal_asked = False
        self._later: list[tuple[float, Callable[[], object]]] = []

    def bind(self, directory: str) -> None:
        """Make the sockets, in the box's directory. Raises OSError."""
        self._shell = Channel(f"{directory}/shell.sock", self._limits, lasting=self._lasting)
        self._control = Channel(f"{directory}/control.sock", self._limits, lasting=self._lasting)
        self._room = out_of_the_way(os.eventfd(OUTGOING, os.EFD_CLOEXEC | os.EFD_SEMAPHORE))
        self._wake = out_of_the_way(os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK))
        self._outlet.ask_for_flush = self._ask_for_flush

    @property
    def shell_descriptor(self) -> int:
        """Readable when something new has come on the shell socket."""
        return self._shell.fileno()

    def accept(self) -> None:
        """Wait until the node has connected to both."""
        self._shell.accept()
        self._control.accept()

    def start(self, handlers: Mapping[str, Handler]) -> None:
        """Serve the control socket; a handler runs on the I/O thread and must not wait."""
        thread = threading.Thread(target=self._serve, args=(handlers,), name="capsule-io", daemon=True)
        with system.signals_blocked():
            thread.start()  # inherits the mask: every signal is the main thread's

    def send(self, envelope: Envelope) -> None:
        """Send from any thread; raises LocalProtocolError when the message is over a limit.

        Waits while the node does not read. No interrupt ends the wait, for a fence may have announced the message; the
        node reads on when it interrupts.
        """
        sender = threading.get_ident()
        if sender == self._main:
            if self._shell.send(codec.encode(envelope, self._limits)):
                self._interrupts.settle()
        elif sender == self._io:  # the garbage collector ran user code there
            self._control.send(codec.encode(envelope, self._limits))
        else:
            self.check(envelope)  # an error belongs to the caller, not to the I/O thread
            os.read(self._room, 8)
            self._outgoing.put(envelope)
            os.eventfd_write(self._wake, 1)

    def tell(self, envelope: Envelope) -> int:
        """Send what belongs to an execution: as `send`, but no node that dies loses it. Returns its number, or 0."""
        if self._kept is None:
            self.send(envelope)
            return 0
        by_shell = threading.get_ident() == self._main and not self._shell.deaf
        entry = self._kept.add(envelope, self._limits, self._node if by_shell else UNSENT)
        if by_shell and self._shell.send(entry.frames) and self._shell.deaf:
            by_shell, entry.link = False, UNSENT
        if not by_shell:
            self._resend = True
            os.eventfd_write(self._wake, 1)
        if threading.get_ident() != self._io and self._kept.is_over():
            self._interrupts.stall(True)  # noqa: FBT003  # the message is whole: an interrupt may end the wait
            try:
                self._kept.wait_for_room()
            finally:
                self._interrupts.stall(False)  # noqa: FBT003  # as above
        self._interrupts.settle()
        return entry.number

    def check(self, envelope: Envelope) -> None:
        """Raise LocalProtocolError if the envelope cannot be sent: it is over a limit, or msgpack cannot carry it."""
        codec.encode(envelope if self._kept is None else envelope._replace(sequence=LARGEST), self._limits)

    def receive(self, *, wait: bool) -> Envelope | None:
        """The next message of the shell socket; None if there is none and `wait` is false."""
        while (frames := self._shell.receive()) is None:
            if not wait:
                return None
            self._interrupts.idle = True  # nothing has been taken yet that a handler of user code could cost
            try:
                self._interrupts.settle()
                self._shell.wait()
            finally:
                self._interrupts.idle = False
        return codec.decode(frames, self._limits)

    def signal_main(self) -> None:
        """Have the I/O thread send the interrupt signal to the main thread, behind this call if that takes no time."""
        self._signal_asked = True
        os.eventfd_write(self._wake, 1)

    def close(self) -> None:
        """Nothing more is said on the shell socket; the other one ends with the process."""
        self._shell.close()

    def _ask_for_flush(self) -> None:
        if not self._flush_asked:
            self._flush_asked = True
            os.eventfd_write(self._wake, 1)

    def _serve(self, handlers: Mapping[str, Handler]) -> None:
        self._io = threading.get_ident()
        poller = select.poll()
        poller.register(self._wake, select.POLLIN)
        served = -1
        flush_at: float | None = None
        while True:
            served = self._serve_next(poller, served)
            times = [at for at, _ in self._later] + ([] if flush_at is None else [flush_at])
            wait = max(0, round((min(times) - time.monotonic()) * 1000)) if times else None
            ready = [descriptor for descriptor, _ in poller.poll(wait)]
            if self._wake in ready:
                os.eventfd_read(self._wake)
                if self._signal_asked:
                    self._signal_asked = False
                    self.later(SOON, partial(signal.pthread_kill, self._main, INTERRUPT_SIGNAL))
                if self._flush_asked and flush_at is None:
                    flush_at = time.monotonic() + HOLD
            if flush_at is not None and time.monotonic() >= flush_at:
                self._flush_asked, flush_at = False, None
                self._outlet.flush_if_possible()
            if self._later:
                self._call_what_is_due()
            self._send_outgoing()
            if served in ready:
                self._take(handlers)
            if self._resend:
                self._send_kept()

    def later(self, seconds: float, call: Callable[[], object]) -> None:
        """On the I/O thread: call this after so many seconds; it must not wait."""
        self._later.append((time.monotonic() + seconds, call))

    def _call_what_is_due(self) -> None:
        now = time.monotonic()
        due = [call for at, call in self._later if at <= now]
        self._later = [entry for entry in self._later if entry[0] > now]
        for call in due:
            call()

    def _serve_next(self, poller: select.poll, served: int) -> int:
        """What is to be served, instead of the last: another descriptor, when a node has gone or come."""
        now = self._control.fileno()
        if now != served:
            if served >= 0:
                poller.unregister(served)
            poller.register(now, select.POLLIN)
        return now

    def _send_outgoing(self) -> None:
        while not self._outgoing.empty():
            outgoing = self._outgoing.get()
            if self._control.nodes == self._greeter and self._is_wanted(outgoing):
                self._control.send(codec.encode(outgoing, self._limits))
            os.eventfd_write(self._room, 1)

    def _is_wanted(self, outgoing: Envelope) -> bool:
        """Whether it answers nothing that only a node which died has asked."""
        asked = outgoing.body.get("reply_to", "")
        wanted = not asked or asked in self._unanswered
        self._unanswered.discard(asked)
        return wanted

    def _take(self, handlers: Mapping[str, Handler]) -> None:
        while (frames := self._control.receive()) is not None:
            envelope = codec.decode(frames, self._limits)
            if envelope.id:
                self._unanswered.add(envelope.id)
            handler = handlers.get(envelope.type)
            if handler is None:
                self.answer(envelope, unknown_type(envelope))
            else:
                handler(envelope)

    def _send_kept(self) -> None:
        """On the I/O thread: send what the main thread could not, what other threads told, or all, to a new node."""
        if self._kept is None or self._control.deaf or self._control.nodes != self._greeter:
            return  # the next node that greets will have it
        self._resend = False
        for entry in self._kept.unsent(self._node):
            self._control.send(entry.frames)
            entry.link = self._node

    def confirm(self, number: int) -> None:
        """On the I/O thread: the node has dealt with the messages up to this number for good."""
        if self._kept is not None:
            self._kept.confirm(number)

    def greet(self, request: Envelope, reply: Envelope, number: int) -> None:
        """On the I/O thread: answer another node, which knows the messages up to this number and gets the others."""
        self.confirm(number)
        last = self._kept.last() if self._kept is not None else 0
        self.answer(request, reply._replace(body={**reply.body, "last": last}))
        self._node += 1
        self._unanswered.clear()
        self._greeter = self._control.nodes
        self._resend = True

    def answer(self, request: Envelope, reply: Envelope) -> None:
        """Answer a request of the control socket, on the I/O thread."""
        self._unanswered.discard(request.id)
        self._control.send(codec.encode(reply._replace(session=request.session), self._limits))


def unknown_type(envelope: Envelope) -> Envelope:
    """The answer to a message that this worker does not know."""
    return failure(envelope, "unsupported", f"a worker does not know messages of type {envelope.type!r}")


def failure(envelope: Envelope, code: str, message: str, **more: Any) -> Envelope:
    """A request that could not be answered."""
    body = {"reply_to": envelope.id, "verdict": "", "name": code, "message": message, "code": code, **more}
    return Envelope("error", body, session=envelope.session, execution=envelope.execution)
