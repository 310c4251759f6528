"""What the front writes down: which sessions there are, which executions it accepted, and what they told."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from capsule.events import Finished, Started
from capsule.node.durable.claims import Claims, elsewhere
from capsule.node.durable.clocks import Clocks
from capsule.node.durable.elsewhere import foreign_ending
from capsule.node.durable.inquiries import Inquiries
from capsule.node.durable.intake import Intake
from capsule.node.durable.patience import until_committed
from capsule.node.durable.records import (
    action_of,
    epoch_of,
    execution_of,
    fingerprint_of,
    pack_request,
    pack_session,
    pack_verdict,
    unpack_request,
)
from capsule.node.durable.scribe import Reader, Scribe
from capsule.node.durable.sharing import entry
from capsule.node.inheritance import Remembered
from capsule.node.requests import check_same
from capsule.node.verdicts import cancelled, lost
from capsule.wire import pack_event, unpack_event
from capsule_bridge import Leases, Log, LoggedEvent, NewPromise, Settlement, Watched, promise_id, session_promise
from capsule_bridge.rules import request_of
from capsule_protocol.errors import ArgumentError, CapsuleError, LocalProtocolError, SessionError, WorkerLost

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping

    from capsule.events import Event
    from capsule.node.auth.principals import Principal
    from capsule.node.execution import ExecuteRequest
    from capsule.node.front.log import EventLog
    from capsule.node.session import Session
    from capsule.node.tasks import Tasks
    from capsule.node.verdicts import Ruling
    from capsule_bridge import Bridge, Claim, Fence, Promise, Retention, Settled
    from capsule_bridge import Started as BridgeStarted

logger = logging.getLogger("capsule.bridge")

EXPIRY_INTERVAL = 60.0
"""Seconds between two looks at what is due and what is old, at most."""


@dataclass(frozen=True, slots=True)
class Entry:
    """An execution that was accepted. `fresh`: it is to be run; `begun`: its start is event 1 of its log already."""

    promise: Promise
    fresh: bool
    begun: bool


class History(NamedTuple):
    """What a log has behind a number: how many events are not kept any more, those that are, and the last number."""

    missing: int
    events: list[Event]
    last: int


class Ledger:
    """One for each front, over the node's bridge. A node that shares its store has a `name` among the others."""

    def __init__(self, bridge: Bridge, tasks: Tasks, name: str = "") -> None:
        self.bridge = bridge
        self.name = name
        self.intake = Intake()
        self.inquiries = Inquiries(bridge, tasks)
        self._tasks = tasks
        self.claims = Claims(bridge, name)
        self._tidy_now = asyncio.Event()
        # Nodes that share a store keep off what is another one's, by leases. Without leases anybody may settle it.
        self._judged_elsewhere = isinstance(bridge.store, Watched) and not isinstance(bridge.store, Leases)

    # --- sessions ---

    async def opened(self, session: Session, owner: str) -> None:
        """A session is there. Raises StoreError."""
        self.claims.check_lives()
        param = pack_session(session.options, session.options.name, session.secret)
        new = NewPromise(
            id=session_promise(session.id),
            kind="session",
            session=session.id,
            fingerprint=b"",
            param=param,
            principal=owner,
            epoch=session.epoch,
            log=(entry(self.name),) if self.name else (),
        )
        self.own(session.id, (await self.bridge.accept(new)).promise.fence)

    def own(self, session: str, fence: Fence) -> None:
        """The session is this node's as long as its promise has this fence."""
        self.claims.own(session, fence)

    async def restarting(self, session: Session) -> None:
        """A session is about to have a new worker, and its state will be gone.

        Raises SessionError `session_elsewhere` if it belongs to another node by now, and StoreError.
        """
        promise = session_promise(session.id)
        if not self.name:
            self.claims.lose(session.id)  # if the store fails now, nobody knows which one it has
            self.own(session.id, await self.bridge.take(promise, session.epoch + 1))
            return
        try:
            await self.bridge.append(promise, (entry(self.name),), session.epoch, None)
            self.own(session.id, await self.bridge.take(promise, session.epoch + 1))
        except (LocalProtocolError, SessionError) as error:
            raise elsewhere(session.name) from error

    async def closed(self, session: Session) -> None:
        """A session is over. If that cannot be written down, it is found at the next start, and expires.

        One that another node has by now is over here only.
        """
        known = self.claims.lose(session.id)

        def end(claim: Claim | None) -> Awaitable[list[Settled]]:
            fence = known if claim is None else claim.fence
            return self.bridge.settle(Settlement(session_promise(session.id), "resolve", fence=fence))

        try:
            await self.claims.under(session.id, end)
        except CapsuleError as error:
            logger.warning("the end of session %s was not written down: %s", session.id, error)

    # --- executions ---

    async def accept(
        self,
        session: Session,
        owner: str,
        request: ExecuteRequest,
        execution: str,
        *,
        key: str | None,
        ahead: Collection[ExecuteRequest],
    ) -> Entry:
        """Write down that it was asked for; `ahead`: those before it that are not lined up yet.

        What will be sent to the worker at once is started with that. Raises SessionError `idempotency_conflict`,
        `promise_expired`, and `session_elsewhere` if another node has the session by now; StoreError.
        """
        # Of what follows another one it is seen when it is lined up whether it runs at all.
        may_start = session.state in {"ready", "busy"} and not request.follows
        at_once = may_start and not (ahead or session.under_way)
        new = NewPromise(
            id=promise_id(execution),
            kind="execute",
            session=session.id,
            fingerprint=fingerprint_of(request),
            param=pack_request(request),
            principal=owner,
            key=key,
            epoch=session.epoch if may_start and session.has_room(request, ahead) else None,
            log=(pack_event(Started("", 1, session.count_of(request))),) if at_once else (),
        )

        def judge(found: Promise) -> None:
            check_same(unpack_request(request_of(found)), request, key, execution)

        self.claims.check_lives()
        accept = self.claims.under(session.id, lambda claim: self.bridge.accept(new._replace(claim=claim), judge))
        promise, fresh = await accept
        if promise.id != new.id:  # who asks again has to name the same execution, whose events are numbered
            self.bridge.stats.asked_again(session.id, same=False)
            other = execution_of(promise)
            message = f"the idempotency key {key!r:.80} belongs to execution {other!r}, and not to {execution[:64]!r}"
            raise SessionError("idempotency_conflict", message, details={"execution": other})
        return Entry(promise, fresh, at_once)

    async def left(self, promise: Promise) -> Entry:
        """An accepted one that nobody runs, because the call that wrote it down is said to have failed."""
        last = await self._last(promise)
        self.bridge.stats.took_over(promise)
        return Entry(promise, fresh=True, begun=last > 0)

    def scribe(self, execution: str, session: str, reader: Reader) -> Scribe:
        """Who writes down what it tells."""
        scribe = Scribe(self.bridge, promise_id(execution), self._tasks, reader, partial(self._settle, session))
        if self._judged_elsewhere:
            scribe.watch()
        return scribe

    async def begin(self, promise: str, session: str, epoch: int) -> BridgeStarted:
        """As `Bridge.begin`. Raises SessionError `session_elsewhere`, too, if another node has the session by now."""
        self.claims.check_lives()
        return await self.claims.under(session, lambda claim: self.bridge.begin(promise, epoch, claim))

    async def begun_before(self, promise: str, session: str, epoch: int) -> None:
        """It may not be started by this node. If that is because its session belonged to another one, it is lost.

        Raises SessionError `session_elsewhere` if it is the other way round.
        """

        def take(claim: Claim | None) -> Awaitable[Fence]:
            return self.bridge.take(promise, epoch, claim)

        found = await until_committed(promise, lambda: self.bridge.get(promise))
        if found.pending and found.epoch < epoch:
            await until_committed(promise, lambda: self.claims.under(session, take))
            message = "the node that had begun it has lost its session to this one"
            error = WorkerLost("worker_lost", message, details={"reason": "taken_over"})
            await self.give_up(await self.bridge.get(promise), error, started=True, epoch=epoch_of(found))

    async def remember(self, promise: Promise) -> Remembered:
        """An execution without a verdict, for the session that goes on with it."""
        execution = execution_of(promise)

        async def events_after(number: int) -> list[Event]:
            return [unpack_event(data, execution, at) async for at, data in self.bridge.events(promise.id, number)]

        last = await self._last(promise)
        return Remembered(execution, unpack_request(promise.param), last, events_after)

    async def give_up(self, promise: Promise, error: CapsuleError, *, started: bool, epoch: int | None = None) -> None:
        """It was accepted, and nothing could still run it, or say what became of it. Raises StoreError.

        `epoch`: in which it was begun, if its promise has been taken since.
        """
        last = await self._last(promise)
        code = "epoch_mismatch" if error.code == "epoch_mismatch" else "worker_lost"
        reason = error.details.get("reason", error.code)
        ruling = lost(reason, error.message, error.hint, started=started, last=last, code=code)
        await self._rule(promise, ruling, last, epoch_of(promise) if epoch is None else epoch)

    async def cancel(self, promise: Promise, why: str) -> None:
        """It was accepted, and is not to be run. Raises StoreError."""
        last = await self._last(promise)
        await self._rule(promise, cancelled(why), last, epoch_of(promise))

    async def _last(self, promise: Promise) -> int:
        """The number of its last event. None is read: one that is damaged keeps nobody from going on, or ruling."""
        return (await self.bridge.store.read(promise.id, after=0, limit=0)).last

    async def _rule(self, promise: Promise, ruling: Ruling, last: int, epoch: int) -> None:
        finished = Finished(execution_of(promise), last + 1, ruling.verdict, error=ruling.error, epoch=epoch)
        log = (pack_event(finished),)
        # Only for whom it was found with: if somebody else has it meanwhile, the verdict is his.
        value, fence = pack_verdict(finished), promise.fence
        await self._settle(promise.session, Settlement(promise.id, action_of(finished), value, fence, log, last))

    async def _settle(self, session: str, *settlements: Settlement) -> list[Settled]:
        """As `Bridge.settle`. What nobody has begun has no owner but its session's, while that is open."""
        if all(one.fence is not None and one.fence.version for one in settlements):
            return await self.bridge.settle(*settlements)
        return await self.claims.under_if_open(
            session, lambda claim: self.bridge.settle(*(one._replace(claim=claim) for one in settlements))
        )

    async def known(self, session: str, request: ExecuteRequest, execution: str, key: str) -> bool:
        """Whether this request has been accepted before. Raises SessionError `idempotency_conflict` for another one."""
        try:
            promise = await self.find(session, execution)
        except SessionError as error:
            if error.code != "execution_unknown":
                raise
            return False
        self.compare(session, unpack_request(request_of(promise)), request, execution, key)
        return True

    def compare(
        self, session: str, first: ExecuteRequest, again: ExecuteRequest, execution: str, key: str | None
    ) -> None:
        """As `check_same`, and counted: for what is found without the bridge, which counts for itself."""
        same = False
        try:
            check_same(first, again, key, execution)
            same = True
        finally:
            self.bridge.stats.asked_again(session, same=same)

    async def find(self, session: str, execution: str) -> Promise:
        """An accepted execution of this session. Raises SessionError `execution_unknown`."""
        promise = await self._get(execution)
        if promise.session != session or promise.kind != "execute":
            raise execution_unknown(execution)
        return promise

    async def part(self, execution: str, after: int, *, wait: float) -> tuple[Log, bool]:
        """What it told behind a number, and whether that ends with the verdict; waits so long if there is nothing.

        Raises ArgumentError for a number that no event of it has.
        """
        log, ended = await self.bridge.part(promise_id(execution), after, wait=wait)
        last = log.last
        if ended:
            ending = foreign_ending(await self.bridge.get(promise_id(execution)), last)
            if ending is not None:
                last = ending.sequence
                if last > after:
                    log = Log(log.first, last, (*log.events, LoggedEvent(last, pack_event(ending))))
        check_after(after, last)
        return log, ended

    async def by_id(self, execution: str, principal: Principal) -> Promise:
        """An execution in any session of the principal's. Raises SessionError `execution_unknown`."""
        promise = await self._get(execution)
        if promise.kind != "execute" or not (promise.principal == principal.name or principal.sees_all):
            raise execution_unknown(execution)
        return promise

    async def history(self, session: str, logs: Mapping[str, EventLog], execution: str, after: int) -> History:
        """What was told of an execution of this session behind `after`: from the store, then from its log if it runs.

        Raises SessionError `execution_unknown`, also for one that has no verdict and does not run here.
        """
        await self.find(session, execution)
        missing, events, last = await self._logged(execution, after)
        while (log := logs.get(execution)) is not None:
            if last > log.last:  # what is written down and not told yet, will be
                events, last = [event for event in events if event.sequence <= log.last], max(after, log.last)
            gone, told = log.since(last)
            if not gone:
                return History(missing, events + told, max(last, log.last))
            _, told, last = await self._logged(execution, last)  # it went on while the store was read
            events += told
        if (await self.find(session, execution)).pending:
            raise execution_unknown(execution)
        _, told, last = await self._logged(execution, last)
        ending = foreign_ending(await self.find(session, execution), last)
        if ending is not None and ending.sequence > after:
            told, last = [*told, ending], ending.sequence
        return History(missing, events + told, last)

    async def _get(self, execution: str) -> Promise:
        try:
            return await self.bridge.get(promise_id(execution))
        except SessionError as error:
            if error.code != "promise_unknown":
                raise
            raise execution_unknown(execution) from None

    async def _logged(self, execution: str, after: int) -> History:
        id_ = promise_id(execution)
        log = await self.bridge.store.read(id_, after=after, limit=0)
        missing = max(0, log.first - 1 - after)
        events = [
            unpack_event(data, execution, number) async for number, data in self.bridge.events(id_, after + missing)
        ]
        return History(missing, events, events[-1].sequence if events else log.last)

    # --- time ---

    async def keep_tidy(self, retention: Callable[[], Retention]) -> None:
        """For ever: write down what is due, and forget what is old; and see whether the clock was set."""
        clocks = Clocks(lambda: self.bridge.clock_ahead)
        while True:
            self._tidy_now.clear()
            clocks.look()
            try:
                while (await self.bridge.expire(retention())).more:
                    await asyncio.sleep(0)
            except CapsuleError as error:
                logger.warning("what is old in the store could not be forgotten: %s", error)
            except Exception:  # a mistake of the store's: the next look is another one
                logger.exception("what is old in the store could not be forgotten")
            with suppress(TimeoutError):
                async with asyncio.timeout(min(EXPIRY_INTERVAL, retention().results / 2000)):
                    await self._tidy_now.wait()

    def works(self) -> bool:
        """Whether its store could write the last time. If not it is tried again, so whoever asks hears of it soon."""
        if self.bridge.store.failure is None:
            return True
        self._tidy_now.set()
        return False


def check_after(after: int, last: int) -> None:
    """Raises ArgumentError for a number behind which nobody can go on: no event has it."""
    if after > last:
        raise ArgumentError("after", f"is {after}", allowed=f"at most {last}, the last event")


def execution_unknown(execution: str) -> SessionError:
    """The refusal of an id that no execution of the session has."""
    return SessionError("execution_unknown", f"there is no execution {execution[:64]!r}")
