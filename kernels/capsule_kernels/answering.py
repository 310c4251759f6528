"""Answers to what is asked beside the code: on the main thread between two cells, or in a subshell in its turn."""

from __future__ import annotations

from typing import TYPE_CHECKING

from capsule_kernels.attribution import NOBODY, OWNER
from capsule_kernels.link import failure
from capsule_kernels.swallowed import let_through
from capsule_kernels.verdicts import summed_up
from capsule_protocol.envelope import Envelope
from capsule_protocol.errors import LocalProtocolError
from capsule_protocol.page import target_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from capsule_kernels.interrupts import Interrupts
    from capsule_kernels.introspect import Answer
    from capsule_kernels.link import Link


class Answering:
    """Every question has one answer; user objects take part in it, which may do and raise anything."""

    def __init__(self, answers: Mapping[str, Answer], link: Link, interrupts: Interrupts) -> None:
        self.answers = answers
        """The handler of each type of question."""
        self._link = link
        self._interrupts = interrupts

    def skip(self, serial: int) -> None:
        """On the main thread: an execution was cancelled, and what is asked from here on is behind it."""
        self._interrupts.skip(serial)

    def here(self, envelope: Envelope) -> None:
        """On the main thread: an interrupt ends it, whatever the user's objects, or IPython, make of that."""
        before = OWNER.set(NOBODY)
        with let_through(self._interrupts):
            reply = self._armed(envelope)
        OWNER.reset(before)
        self._send(envelope, reply)

    def aside(self, envelope: Envelope) -> None:
        """On the thread of a subshell."""
        before = OWNER.set(NOBODY)
        reply = self._reply(envelope)
        OWNER.reset(before)
        self._send(envelope, reply)

    def _armed(self, envelope: Envelope) -> Envelope:
        interrupts = self._interrupts
        try:
            try:
                interrupts.arm(target_of(envelope.id))
                reply = self._reply(envelope)
                interrupts.insist()
                return reply
            finally:
                interrupts.disarm()
        except KeyboardInterrupt:
            interrupts.disarm()  # the interrupt may have come in the line above
            return failure(envelope, "execution_interrupted", f"{envelope.type} was interrupted on request")

    def _reply(self, envelope: Envelope) -> Envelope:
        try:
            body = self.answers[envelope.type](envelope.body)
        except BaseException as error:  # noqa: BLE001  # user objects answer and may raise anything
            return failure(envelope, "execution_error", summed_up(error))
        return Envelope(f"{envelope.type}_reply", {**body, "reply_to": envelope.id}, session=envelope.session)

    def _send(self, envelope: Envelope, reply: Envelope) -> None:
        try:
            self._link.send(reply)
        except LocalProtocolError as error:
            self._link.send(failure(envelope, "execution_error", summed_up(error)))
