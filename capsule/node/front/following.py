"""The executions that one connection follows: taken or resumed, told what was, then what comes, to the verdict."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING, Any, Final, Protocol

from capsule.events import Finished, Gap, Started
from capsule.node.durable.ledger import History, check_after, execution_unknown
from capsule.node.execution import ExecuteRequest
from capsule.node.front.log import WINDOW
from capsule.wire import comm_request, size_of
from capsule_protocol.errors import CapsuleError, SessionError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from capsule.events import Event
    from capsule.node.durable import Ledger
    from capsule.node.front.desk import Desk
    from capsule.node.front.hosted import Hosted
    from capsule.node.front.log import EventLog
    from capsule_protocol.envelope import Envelope

logger = logging.getLogger("capsule.front")

AT_ONCE: Final = 64
"""Events of a log that are told in one turn of the loop."""


class Line(Protocol):
    """What it needs of its connection."""

    client: str

    @property
    def owner(self) -> str:
        """The principal whose it is."""

    def session(self, session: str) -> Hosted:
        """A session that this connection reads. Raises SessionError."""

    def reads(self, session: str) -> bool:
        """Whether it reads this session, and is not gone."""

    def accept(self, session: str, execution: str, started: Started | None) -> None:
        """Tell that the node has an execution, and that it has begun, if that is what comes first."""

    def tell(self, session: str, execution: str, event: Event) -> None:
        """Send an event."""

    def refuse(self, error: CapsuleError, session: str, execution: str, action: str) -> None:
        """Answer an execution that is not accepted, or is another client's now."""

    def give_up(self, why: str) -> None:
        """End the connection: its client comes back, and goes on."""


class _Replay:
    """A long log on its way to its client, who is never sent more than a window beyond what he has dealt with."""

    def __init__(self, session: str) -> None:
        self.session = session
        self.over = False
        self._sent: deque[tuple[int, int]] = deque()
        self._ahead = 0
        self._changed = asyncio.Event()

    def count(self, event: Event) -> None:
        """One was sent."""
        size = size_of(event)
        self._sent.append((event.sequence, size))
        self._ahead += size

    def acknowledge(self, number: int) -> None:
        """The events up to this one are dealt with."""
        while self._sent and self._sent[0][0] <= number:
            self._ahead -= self._sent.popleft()[1]
        self._changed.set()

    def end(self) -> None:
        """Nobody waits for it any more."""
        self.over = True
        self._changed.set()

    async def room(self) -> bool:
        """Wait until the client may be sent more; False if it is over."""
        while self._ahead >= WINDOW and not self.over:
            self._changed.clear()
            await self._changed.wait()
        return not self.over


class Following:
    """Those of one connection."""

    def __init__(self, desk: Desk, line: Line) -> None:
        self._desk = desk
        self._line = line
        self._executions: set[str] = set()
        self._replays: dict[str, _Replay] = {}
        self._answered = asyncio.Event()  # the last `resume`, and all before it
        self._answered.set()
        self.handlers: dict[str, Callable[[Any, Envelope], None]] = {"execute": self._execute, "resume": self._resume}

    def on_event(self, session: str, log: EventLog, event: Event) -> None:
        """An event of an execution, which may be followed."""
        execution = log.execution.id
        if execution not in self._executions:
            return
        try:
            self._tell(session, execution, event)
        except CapsuleError:  # a mistake of ours costs this connection
            logger.exception("event %d of %s could not be told", event.sequence, execution)
            self._line.give_up("an event could not be told")

    def acknowledge(self, execution: str, number: int) -> None:
        """Its client has dealt with the events up to this one."""
        replay = self._replays.get(execution)
        if replay is not None:
            replay.acknowledge(number)

    def leave(self, hosted: Hosted) -> set[str]:
        """The connection does not read this session any more; which of its executions it followed."""
        replayed = {name for name, replay in self._replays.items() if replay.session == hosted.session.id}
        for name in replayed:
            self._replays[name].end()
        left = replayed | (hosted.logs.keys() & self._executions)
        self._executions -= left
        return left

    def lose(self) -> None:
        """The connection is over."""
        self._executions.clear()
        for replay in self._replays.values():
            replay.end()

    def execute(self, request: ExecuteRequest, session: str, execution: str, key: str | None = None) -> None:
        """Have it executed, and follow it; what is against it is told."""
        try:
            if self._desk.draining:
                raise SessionError("node_closed", "the node takes no more executions: it is about to end")
            hosted = self._line.session(session)
            if execution not in hosted.logs:
                self._desk.gate.check_execute(hosted.owner, hosted)
            if hosted.ledger is not None:
                accepted = hosted.accept(hosted.ledger, request, execution, key)
                self._desk.tasks.start_now(self._accept(hosted, hosted.ledger, accepted, execution))
                return
            log = hosted.submit(request, execution, key)
        except CapsuleError as error:
            self._line.refuse(error, session, execution, "execute")
            return
        # Followed from its acknowledgement on, which precedes all events: those come in a turn of their own.
        self._take_up(hosted, *log.since(0), 0, execution)

    # --- inside ---

    def _execute(self, message: Any, envelope: Envelope) -> None:
        request = ExecuteRequest(
            message.code,
            message.timeout,
            message.quiet,
            message.store_history,
            message.allow_input,
            message.stop_on_error,
            message.batch,
            message.follows,
            message.cell,
            message.if_epoch,
            message.user_expressions,
            message.payloads,
            comm_request(message.comm, envelope),
            subshell=message.subshell,
            submitter=self._line.owner,
            client=self._line.client,
        )
        self.execute(request, envelope.session, envelope.execution, message.key)

    async def _accept(
        self, hosted: Hosted, ledger: Ledger, accepted: Coroutine[None, None, EventLog | None], execution: str
    ) -> None:
        session = hosted.session.id
        try:
            await accepted
        except CapsuleError as error:
            self._line.refuse(error, session, execution, "execute")
            return
        except Exception:  # a mistake of ours: the client must not wait for ever
            logger.exception("execution %s could not be accepted", execution)
            refusal = SessionError("internal_error", "the execution could not be accepted; see the node's log")
            self._line.refuse(refusal, session, execution, "execute")
            return
        await self._catch_up(hosted, ledger, 0, execution, "execute")

    def _resume(self, message: Any, envelope: Envelope) -> None:
        execution = envelope.execution
        try:
            hosted = self._line.session(envelope.session)
            if hosted.ledger is not None:
                self._desk.tasks.start(self._resume_in_turn(hosted, hosted.ledger, message.after, execution))
                return
            log = hosted.logs.get(execution)
            if log is None:
                raise execution_unknown(execution)
            check_after(message.after, log.last)
        except CapsuleError as error:
            self._line.refuse(error, envelope.session, execution, "resume")
            return
        self._take_up(hosted, *log.since(message.after), message.after, execution)

    async def _resume_in_turn(self, hosted: Hosted, ledger: Ledger, after: int, execution: str) -> None:
        before, answered = self._answered, asyncio.Event()
        self._answered = answered
        try:
            await self._catch_up(hosted, ledger, after, execution, "resume", before)
        finally:
            await before.wait()
            answered.set()

    async def _catch_up(
        self,
        hosted: Hosted,
        ledger: Ledger,
        after: int,
        execution: str,
        action: str,
        before: asyncio.Event | None = None,
    ) -> None:
        """Tell what is logged behind a number; then what comes.

        A refusal waits for the answers `before` it: what is not known is sent again then, and is to run in its order.
        """
        session = hosted.session.id
        try:
            missing, events, last = await _logged(hosted, ledger, execution, after)
            check_after(after, last)
        except CapsuleError as error:
            if before is not None:
                await before.wait()
            self._line.refuse(error, session, execution, action)
            return
        if self._line.reads(session):
            self._take_up(hosted, missing, events, after, execution)

    def _take_up(self, hosted: Hosted, missing: int, events: list[Event], after: int, execution: str) -> None:
        """Acknowledge it, and tell these events: at once if they are few. Then have those that come told."""
        session = hosted.session.id
        started = events[0] if not (after or missing) and events else None
        if isinstance(started, Started):
            del events[0]
            self._line.accept(session, execution, started)
        else:
            self._line.accept(session, execution, None)
        log = hosted.logs.get(execution)
        if log is not None:
            hosted.take_up(log, self._line.client)
        if missing:
            self._line.tell(session, execution, Gap(execution, after + missing, missing))
        if len(events) > AT_ONCE:
            self._desk.tasks.start(self._replay(hosted, execution, events))
            return
        self._executions.add(execution)
        for event in events:
            self._tell(session, execution, event)

    async def _replay(self, hosted: Hosted, execution: str, events: list[Event]) -> None:
        earlier = self._replays.get(execution)
        if earlier is not None:
            earlier.end()
        replay = self._replays[execution] = _Replay(hosted.session.id)
        try:
            await self._tell_all(hosted, execution, events, replay)
        except CapsuleError as error:  # its client comes back, and goes on
            self._line.give_up(f"the log of {execution} could not be told: {error}")
        finally:
            if self._replays.get(execution) is replay:
                del self._replays[execution]

    async def _tell_all(self, hosted: Hosted, execution: str, events: list[Event], replay: _Replay) -> None:
        """These events, then those that came meanwhile, until there are none; from there on it is followed."""
        session = hosted.session.id
        while events:
            for number, event in enumerate(events):
                if number % AT_ONCE == 0:
                    await asyncio.sleep(0)  # others have their turn, and what was sent can go out
                if not await replay.room():
                    return
                self._line.tell(session, execution, event)
                replay.count(event)
            after = events[-1].sequence
            if isinstance(events[-1], Finished):
                return
            missing, events, _ = await _logged(hosted, hosted.ledger, execution, after)
            if missing and not replay.over:
                self._line.tell(session, execution, Gap(execution, after + missing, missing))
        if not replay.over:
            self._executions.add(execution)

    def _tell(self, session: str, execution: str, event: Event) -> None:
        self._line.tell(session, execution, event)
        if isinstance(event, Finished):
            self._executions.discard(execution)


async def _logged(hosted: Hosted, ledger: Ledger | None, execution: str, after: int) -> History:
    """What was told behind a number: from memory, at once, if it is there. Raises CapsuleError."""
    log = hosted.logs.get(execution)
    missing, events = (1, []) if log is None else log.since(after)
    if missing and ledger is not None:
        return await ledger.history(hosted.session.id, hosted.logs, execution, after)
    if log is None:
        raise execution_unknown(execution)
    return History(missing, events, log.last)
