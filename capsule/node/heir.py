"""A worker that another node has left, and that goes on as if nothing had happened."""

from __future__ import annotations

import asyncio
from functools import partial
from operator import itemgetter
from typing import TYPE_CHECKING, Final

from capsule.node.handshake import FEATURES
from capsule.node.journal import name_of
from capsule.node.memory import computed
from capsule.node.replay import Told
from capsule.node.resources import seconds_since
from capsule.node.worker import Preparation, Worker
from capsule_protocol import negotiation
from capsule_protocol import page as shared
from capsule_protocol.envelope import Envelope
from capsule_protocol.errors import RemoteProtocolError
from capsule_protocol.ids import MESSAGE, new_id
from capsule_protocol.messages import parse
from capsule_protocol.messages.execution import Error
from capsule_protocol.messages.link import Adopted

if TYPE_CHECKING:
    from collections.abc import Callable

    from capsule.node.adoption import Estate
    from capsule.node.execution import Execution
    from capsule.node.survival import Survival
    from capsule.node.verdicts import LossCause
    from capsule.node.worker import Owner
    from capsule_protocol.messages import Message

MAX_WAITING: Final = 2048
"""Messages that may wait for one with a lower number; an honest worker keeps fewer."""


class Heir(Worker):
    """Owns the estate from here on; somebody runs `watch` from the start on, and calls `go_on`.

    Until the worker has answered, it gets no executions; interrupts reach it all the same, and so does its end. An
    answer may be long in coming, while C code holds the interpreter.
    """

    def __init__(self, estate: Estate) -> None:
        super().__init__(Preparation(estate.message_bytes, lasting=True), estate)
        assert self.survival is not None
        self._left: Survival = self.survival
        self._adopting = True
        self._taken_up = asyncio.Event()
        self._waiting: dict[int, Told] = {}
        self.agreement = negotiation.Agreement(negotiation.VERSION, frozenset(), self._limits)
        self._on_adopted: Callable[[Adopted], object]
        self._on_live: Callable[[], object]
        self._link.descriptors.close()
        self._greeting.skip()
        self._box = estate.box
        self.directory = estate.box.directory
        self.ready = estate.ready

    @property
    def lost_track(self) -> bool:
        """Whether the dead node had read more than can be made up for."""
        return self._left.journal.abandoned

    async def watch(self) -> None:
        """As any worker's, once it has an owner who can be told: it may end while that still asks a store."""
        await self._taken_up.wait()
        await super().watch()

    def end(self, cause: LossCause) -> None:
        """End it with its whole box, also if nobody has taken it up."""
        self._taken_up.set()
        super().end(cause)

    def go_on(
        self,
        owner: Owner,
        session: str,
        epoch: int,
        on_adopted: Callable[[Adopted], object],
        on_live: Callable[[], object],
    ) -> None:
        """Take up what the other node has left, for this owner.

        `on_adopted` is told what the worker has answered, and `on_live` that all which was left has been told.
        """
        self._hearing.owner = owner
        self._taken_up.set()
        self._on_adopted, self._on_live = on_adopted, on_live
        dispatched = self._left.journal.dispatched()
        self.serial = max(dispatched.values(), default=0)
        for execution, serial in dispatched.items():
            if self._left.had_ended(serial):
                self._left.journal.release(execution)
        self._left.restore(self.serial, self._hearing.deliver)
        body = {**negotiation.hello("node", FEATURES, self._limits), "epoch": epoch, "after": self._left.known}
        self._link.control.connect(self.directory / "control.sock")
        self._link.control.disconnected.add_done_callback(self._on_disconnected)
        self._link.control.send(Envelope("adopt", body, new_id(MESSAGE), session))
        try:
            self._advance()
        except RemoteProtocolError as error:
            self.on_violation(error)

    def recall(self, execution: str, serial: int) -> None:
        """It has this execution; call it before `go_on`."""
        self._hearing.serials[execution] = serial

    def running_for(self, serial: int) -> float:
        """For how many seconds the worker has run this execution; 0.0 if it has not begun it."""
        if not self.started(serial) or self._link.page.get(shared.STARTED) != serial:
            return 0.0
        return seconds_since(self._link.page.get(shared.SINCE))

    def left(self, execution: Execution) -> float | None:
        """By what was noted of its clock last, by the dead node or by this one."""
        reading = self._left.journal.time(name_of(execution.id))
        used = partial(computed, self.pid, aside=bool(execution.request.subshell))
        return None if reading is None else reading.left(self._loop.time(), used)

    def count(self, processes: bool, /) -> None:
        """Whether the box has to look soon how many processes there are when code runs."""
        self._counted = processes

    def _on_envelope(self, envelope: Envelope) -> None:
        told = Told(parse(envelope), envelope)
        if self._adopting:
            self._greet(*told)
        elif not envelope.sequence:
            self._hearing.deliver(told)
        elif self._left.replay is None:
            self._take_turns(told)
        else:
            self._left.replay.offer(envelope.sequence, told)
            self._advance()

    def _take_turns(self, *came: Told) -> None:
        """Deliver the messages in the order of their numbers.

        What comes again does so on the control socket, and what is new on the shell socket: the verdict of one cell
        could overtake that of another.
        """
        for told in came:
            self._waiting[told.envelope.sequence] = told
        if len(self._waiting) > MAX_WAITING:
            raise RemoteProtocolError("unexpected_message", "too many messages wait for one that does not come")
        while self._left.heard + 1 in self._waiting:
            told = self._waiting.pop(self._left.heard + 1)
            self._left.admit(told.envelope.sequence)
            self._hearing.deliver(told)

    def _greet(self, message: Message, envelope: Envelope) -> None:
        """The answer: from here on it is as any other worker, except that some things come again."""
        if not isinstance(message, Adopted):
            said = message.message if isinstance(message, Error) else f"{envelope.type} came"
            raise RemoteProtocolError("unexpected_message", f"it did not let itself be adopted: {said}")
        self._adopting = False
        self.agreement = negotiation.accept(envelope.body, FEATURES, self._limits)
        self._link.shell.connect(self.directory / "shell.sock")
        self._link.shell.disconnected.add_done_callback(self._on_disconnected)
        self._left.greeted(message.last)
        self._on_adopted(message)
        self._advance()

    def _advance(self) -> None:
        """Go on with the replay; when it is over, with what the dead node had not seen."""
        rest = self._left.advance()
        if rest is not None:
            self._take_turns(*rest)
            self._link.capture.start()
            self._on_live()

    def _finish(self) -> None:
        try:
            for told in self._left.finish():
                self._hearing.deliver(told)
            for _, told in sorted(self._waiting.items(), key=itemgetter(0)):
                self._hearing.deliver(told)
        except RemoteProtocolError as error:
            self.on_violation(error)
        super()._finish()
