"""The calls of one session that are under way: what its worker says of them, and what it is answered."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from capsule.broker.account import Account
from capsule.broker.arguments import weigh
from capsule.broker.attempt import Attempt
from capsule.broker.bodies import Inlet, Outlet
from capsule.broker.refusals import Refusals
from capsule.node.tasks import Tasks
from capsule_protocol.envelope import Envelope
from capsule_protocol.errors import (
    CapabilityDenied,
    CapabilityError,
    CapabilityFailed,
    LocalProtocolError,
    RemoteProtocolError,
)
from capsule_protocol.ids import stream_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from capsule.broker.broker import Broker
    from capsule.broker.sdk import Asker, Chunk
    from capsule_protocol.messages.capability import CapabilityRequest

MAX_HELD = 64 * 2**20
"""Bytes of bodies and arguments that its open calls have brought with them; an honest worker brings no more."""
MAX_OPEN = 256
"""Calls of a session that may be under way; an honest worker makes no more."""
MAX_DIGITS = 16
"""Of the number of a call."""
REMEMBERED = 4096
"""Calls that are over, whose requests may come once more. An older number is good for nothing."""

GRANTED = "caps.granted"


class Host(Protocol):
    """What the calls need of their session."""

    def send_call(self, envelope: Envelope) -> None:
        """Tell the worker, if there is one."""

    def standing(self, execution: str) -> AbstractContextManager[None]:
        """While this lasts, the time of this execution does not count."""


class SessionCalls:
    """Those of one session, which has one worker after another."""

    def __init__(self, broker: Broker, asker: Asker, wanted: tuple[str, ...] | None) -> None:
        self._broker = broker
        self._asker = asker
        self._wanted = wanted
        self._epoch = 0
        self._account = Account()
        self._tasks = Tasks()
        self._refusals = Refusals(broker.checkpoint, self._tasks)
        self._open: dict[int, _Open] = {}
        self._over: dict[int, None] = {}
        self._forgotten = 0
        self._held = 0

    def hear(self, message: Any, envelope: Envelope, host: Host) -> None:
        """A message of the worker of this session. Raises RemoteProtocolError for what was not due."""
        if envelope.type == "capability_request":
            self._request(message, envelope, host)
        elif envelope.type == "capability_cancel":
            self._cancel(message.request)
        else:
            self._stream(envelope.type, message, envelope)

    def begin(self, pid: int, directory: str, epoch: int) -> None:
        """From now on this worker calls, which is the session's only one in this epoch."""
        self._asker = replace(self._asker, pid=pid, directory=directory, submitters=())
        self._epoch = epoch
        self._over.clear()
        self._forgotten = 0

    def submitted(self, principal: str) -> None:
        """This principal has code run in the worker, which may do anything later, in whosever execution."""
        asker = self._asker
        if principal not in {"", asker.principal, *asker.submitters}:
            self._asker = replace(asker, submitters=(*asker.submitters, principal))

    async def end(self) -> None:
        """The worker is gone: nobody waits for any of them. Idempotent."""
        for number in self._open:
            self._cancel(number)
        if running := [each.task for each in self._open.values()]:
            await asyncio.wait(running)
        await self._refusals.end()

    # --- inside ---

    def _request(self, message: CapabilityRequest, envelope: Envelope, host: Host) -> None:
        """The code calls. A request that has come before changes nothing."""
        number = message.request
        if number in self._open or number in self._over:
            return
        if self._asker.execution != envelope.execution:  # many calls of one execution follow one another
            self._asker = replace(self._asker, execution=envelope.execution)
        asker = self._asker
        reply = _Reply(number, asker, host.send_call)
        if message.capability == GRANTED:
            reply.tell({"operations": self._broker.describe(asker, self._wanted)})
            return
        weight = weigh(message.capability, message.positional, message.arguments)
        kept = weight.excess is None
        size = sum(map(len, envelope.buffers)) + (weight.size if kept else 0)
        if (refusal := self._refusal(message, size)) is not None:
            self._refusals.add(asker, refusal.code, refusal.message)
            reply.fail(refusal)
        else:
            inlet = Inlet(envelope.buffers, more=message.more, give_credit=reply.credit)
            outlet = Outlet(message.window, reply.data)
            attempt = Attempt(
                epoch=self._epoch,
                number=number,
                capability=message.capability,
                positional=message.positional if kept else [],
                arguments=message.arguments if kept else {},
                asker=asker,
                inlet=inlet,
                outlet=outlet,
                wanted=self._wanted,
                begun=time.time(),
                standing=partial(host.standing, envelope.execution),
                weight=weight,
            )
            self._held += size
            self._open[number] = _Open(attempt, self._tasks.start(self._make(attempt, reply, size)))

    def _refusal(self, message: CapabilityRequest, size: int) -> CapabilityError | None:
        """Why this is not even looked at."""
        if message.request <= self._forgotten:  # nobody knows any more whether it has been made
            text = f"the number {message.request} is behind those that the session uses; calls are counted up"
            return CapabilityFailed("capability_invalid", text)
        if len(self._open) >= MAX_OPEN:
            return CapabilityDenied("capability_busy", f"the session has {MAX_OPEN} calls under way")
        if self._open and self._held + size > MAX_HELD:
            text = f"the calls under way hold {self._held} bytes, and this one has {size}; at most {MAX_HELD} together"
            return CapabilityDenied("capability_busy", text, details={"allowed": MAX_HELD})
        return None

    def _cancel(self, number: int) -> None:
        """Whoever called does not wait any more."""
        found = self._open.get(number)
        if found is not None and not found.given_up:  # once: what follows is how it ended, which is always recorded
            found.given_up = True
            # Behind its first step, or it would never say how it ended.
            asyncio.get_running_loop().call_soon(found.cancel)

    def _stream(self, kind: str, message: Any, envelope: Envelope) -> None:
        """What belongs to the body of a call. Raises RemoteProtocolError for what was not due."""
        prefix, _, number = message.stream.partition(":")
        if prefix != "call" or not number.isdecimal() or len(number) > MAX_DIGITS:
            raise RemoteProtocolError("unexpected_message", f"{kind} is for no stream that there is")
        found = self._open.get(int(number))
        if found is None:  # it is over, which the worker did not know
            return
        inlet, outlet = found.attempt.inlet, found.attempt.outlet
        if kind == "stream_data":
            inlet.feed(envelope.buffers)
        elif kind == "stream_credit":
            outlet.credit(message.size)
        elif kind == "stream_close":
            inlet.end(message.error)
        else:
            raise RemoteProtocolError("unexpected_message", "the stream of a call is not opened")

    async def _make(self, attempt: Attempt, reply: _Reply, size: int) -> None:
        try:
            outcome = await self._broker.checkpoint.settle(attempt, self._account, self._broker.book)
            if outcome.error is not None:
                reply.fail(outcome.error)
            else:
                reply.tell(outcome.value, body=outcome.body, data=outcome.data)
        finally:
            attempt.outlet.close()
            del self._open[attempt.number]
            self._held -= size
            self._over[attempt.number] = None
            if len(self._over) > REMEMBERED:
                oldest = next(iter(self._over))
                del self._over[oldest]
                self._forgotten = max(self._forgotten, oldest)


class _Open:
    """A call that is under way."""

    def __init__(self, attempt: Attempt, task: asyncio.Task[None]) -> None:
        self.attempt = attempt
        self.task = task
        self.given_up = False

    def cancel(self) -> None:
        """Unless it has come to its end, which nothing interrupts."""
        if not self.attempt.ending:
            self.task.cancel()


class _Reply:
    """What the worker is told of one call."""

    def __init__(self, number: int, asker: Asker, send: Callable[[Envelope], None]) -> None:
        self._number = number
        self._asker = asker
        self._send_envelope = send

    def tell(self, value: dict[str, Any], *, body: str = "", data: tuple[Chunk, ...] = ()) -> None:
        """The answer."""
        try:
            self._send(
                "capability_reply",
                {"request": self._number, "value": value, "body": body, "outcome": "accepted", "error": None},
                data,
            )
        except LocalProtocolError as error:
            refused = CapabilityDenied("capability_too_large", f"the answer fits into no message: {error.message}")
            self.fail(refused)

    def fail(self, error: CapabilityError) -> None:
        """Why there is none."""
        body = {"request": self._number, "value": {}, "body": "", "outcome": error.outcome, "error": error.as_dict()}
        self._send("capability_reply", body)

    def data(self, pieces: tuple[Chunk, ...]) -> None:
        """Part of the answer's body."""
        self._send("stream_data", {"stream": stream_of(self._number)}, pieces)

    def credit(self, size: int) -> None:
        """Room for more of the request's body."""
        self._send("stream_credit", {"stream": stream_of(self._number), "size": size})

    def _send(self, kind: str, body: dict[str, Any], buffers: tuple[Chunk, ...] = ()) -> None:
        asker = self._asker
        self._send_envelope(Envelope(kind, body, session=asker.session, execution=asker.execution, buffers=buffers))
