"""What a front end's debugger asks: served on a thread of its own, also while code stands at a breakpoint."""

from __future__ import annotations

import queue
from typing import TYPE_CHECKING, Any

from capsule_kernels.dap import untraced
from capsule_kernels.display import plain
from capsule_kernels.link import failure
from capsule_protocol.envelope import Envelope
from capsule_protocol.errors import LocalProtocolError

if TYPE_CHECKING:
    from capsule_kernels.debugger import CellDebugger
    from capsule_kernels.interrupts import Interrupts
    from capsule_kernels.link import Link
    from capsule_kernels.publisher import Publisher
    from capsule_kernels.shell import ZMQInteractiveShell


class Debugging:
    """That of one session. Nothing of it is loaded, and no thread runs, before the first request."""

    def __init__(self, shell: ZMQInteractiveShell, link: Link, publisher: Publisher, interrupts: Interrupts) -> None:
        self._shell = shell
        self._link = link
        self._publisher = publisher
        self._interrupts = interrupts
        self._requests: queue.SimpleQueue[Envelope] = queue.SimpleQueue()
        self._serving = False
        self._debugger: CellDebugger | None = None
        self.folder = ""
        """Where the sources of cells are, for breakpoints to name them."""

    def take(self, envelope: Envelope) -> None:
        """On the I/O thread: a request, to be answered in its turn."""
        self._requests.put(envelope)
        if not self._serving:
            self._serving = True
            untraced("capsule-debug", self._serve)

    def _serve(self) -> None:
        while True:
            envelope = self._requests.get()
            try:
                reply = self._answer(envelope)
                self._link.send(reply)
            except LocalProtocolError as error:
                self._link.send(failure(envelope, error.code, error.message))

    def _answer(self, envelope: Envelope) -> Envelope:
        request = envelope.body.get("request", {})
        if not (isinstance(request.get("command"), str) and type(request.get("seq")) is int):
            return failure(envelope, "invalid_argument", "request: a debug request has a command, and a number seq")
        try:
            debugger = self._debugger or self._load()
        except ImportError as error:
            return failure(envelope, "unsupported", f"the environment has no debugger: {error}")
        body = {"response": plain(debugger.ask(request)), "reply_to": envelope.id}
        return Envelope("debug_reply", body, session=envelope.session)

    def _load(self) -> CellDebugger:
        from capsule_kernels.debugger import AVAILABLE, FOLDER, CellDebugger

        if not AVAILABLE:
            raise ImportError("debugpy cannot be imported")
        self._debugger = CellDebugger(self._shell, self.folder, self._tell)
        self._interrupts.respect_debugger(FOLDER, self._debugger.let_go, self._debugger.trace_again)
        return self._debugger

    def _tell(self, event: dict[str, Any]) -> None:
        body = {"event": plain(event)}
        self._link.send(Envelope("debug_event", body, session=self._publisher.session))
