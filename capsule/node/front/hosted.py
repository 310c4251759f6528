"""A session that clients of the front use. It outlives their connections, for a while or as long as they said."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from capsule.events import Finished
from capsule.node.durable.patience import until_committed
from capsule.node.durable.records import execution_of
from capsule.node.front.acceptance import Acceptance
from capsule.node.front.aside import Aside
from capsule.node.front.followed import Followed
from capsule.node.front.log import EventLog
from capsule.node.front.sharers import Sharers
from capsule.node.front.watch import MAX_WATCHERS, Watch
from capsule.node.requests import check_same
from capsule.node.verdicts import unreadable
from capsule_bridge import promise_id
from capsule_protocol.errors import CapsuleError, SessionError

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Coroutine

    from capsule.events import Event
    from capsule.node.durable import Entry, Ledger
    from capsule.node.execution import ExecuteRequest, Execution
    from capsule.node.front.watch import Onlooker
    from capsule.node.session import Session
    from capsule.node.tasks import Tasks
    from capsule_bridge import Fence, Promise

logger = logging.getLogger("capsule.front")

MAX_KEPT = 1000
"""Executions with an idempotency key that a session remembers; the oldest are forgotten."""
MAX_LOGS = 10_000
"""Executions of a session whose verdict no client has acknowledged."""
MAX_LEFT = 1000
"""Executions that have ended, whose clients have left the session, that it keeps; the oldest are let go of."""
LAST_WORDS = 1.0
"""Seconds that the reader of a session which is killed has to take what was said before the end."""


class Reader(Protocol):
    """Who is told of a session's events: the connection of its client, or of one that shares it."""

    client: str

    def on_event(self, session: str, log: EventLog, event: Event) -> None:
        """An event of an execution."""

    def on_background(self, session: str, event: Event) -> None:
        """An event of none."""

    def on_state(self, session: str, state: str, reason: str) -> None:
        """The session is in another state."""

    def on_closed(self, hosted: Hosted, error: SessionError) -> None:
        """The session is over for this reader; the error says why."""


class Hosted:
    """One session of the front: its owner, its reader if there is one, and the logs of its executions.

    Beside the reader others may share it: each is told of what it has asked for itself. An execution is the client's
    who asked for it, as long as that one has the session; then, of whoever takes it up.
    `asleep`: an earlier node had it, and nobody has asked for it since.
    """

    def __init__(
        self,
        session: Session,
        owner: str,
        tasks: Tasks,
        expire: Callable[[Hosted], None],
        ledger: Ledger | None = None,
    ) -> None:
        self.session = session
        self.owner = owner
        self.ledger = ledger
        self.logs: dict[str, EventLog] = {}
        self.followed = Followed(session.id, self.logs, ledger)
        self.reader: Reader | None = None
        self.on_verdict: Callable[[str], None] | None = None
        self._opened = asyncio.get_running_loop().time()
        self._client = ""
        self._tasks = tasks
        self._expire = expire
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._kept: deque[str] = deque()
        self._watches: list[Watch] = []
        self._sharers = Sharers()
        self._detached = False
        self._left: dict[str, None] = {}  # oldest first; some may be somebody's again
        self._unfinished: dict[EventLog, None] = {}  # in the order of acceptance
        self._aside = Aside(self._tell_aside)
        self._quiet = asyncio.Event()
        self._closed = False
        self.asleep = False
        self.complete = asyncio.Event()  # what an earlier node had accepted is lined up, or has its verdict
        self.complete.set()
        self.waking: asyncio.Task[None] | None = None
        self._acceptance = Acceptance(self, self._quiet.set)
        session.on_background = self._on_background
        session.on_state = self._on_state

    @property
    def age(self) -> float:
        """Seconds since it was opened."""
        return self._loop.time() - self._opened

    @property
    def under_way(self) -> int:
        """How many executions have no verdict yet."""
        return self.session.under_way + len(self._acceptance)

    def submit(self, request: ExecuteRequest, execution: str, key: str | None) -> EventLog:
        """The log of an execution: a new one, or that of the same request before.

        Raises SessionError: `idempotency_conflict` if it came before with another request, and what `Session.submit`
        raises.
        """
        known = self._known(request, execution, key)
        if known is not None:
            return known
        made = self.session.submit(request, execution, stopped=self.followed.stops(request))
        log = self._begin(made, keep=key is not None)
        if key is not None:
            self._remember(execution)
        return log

    def accept(
        self, ledger: Ledger, request: ExecuteRequest, execution: str, key: str | None
    ) -> Coroutine[None, None, EventLog | None]:
        """As `submit`, and it is written down; the log, when it is; None: it is in the ledger only.

        It counts from now on. Raises as `submit` does, at once; what is waited for raises SessionError
        `idempotency_conflict` and `promise_expired`, and StoreError.
        """
        known = self._known(request, execution, key)
        if known is not None:
            return _that(known)
        return self._acceptance.take(ledger, request, execution, key)

    async def accepted(self, execution: str) -> None:
        """Wait until it is written down, or refused, if it is about to be."""
        if execution in self._acceptance:
            await self._acceptance.passed()

    async def lined_up(self) -> None:
        """Wait until all that was asked for before is lined up."""
        await self._acceptance.passed()

    async def interrupt(self) -> bool:
        """As `Session.interrupt`; what was asked for before and is not lined up yet counts as running."""
        if self._acceptance and not self.session.under_way:
            await self._acceptance.passed()
        return await self.session.interrupt()

    async def interrupt_sharer(self) -> bool:
        """As `Session.interrupt`, if what runs is none of the reader's; else False."""
        for log in self._unfinished:
            execution = log.execution
            if execution.state == "running" and not execution.request.subshell:
                return log.client != self._client and await self.session.cancel(execution.id)
        return False

    async def cancel(self, execution: str) -> bool:
        """As `Session.cancel`, also while it is being accepted."""
        if execution in self._acceptance:
            self._acceptance.cancel(execution)
            return True
        return await self.session.cancel(execution)

    async def cancel_all(self) -> int:
        """As `Session.cancel_all`, with what is being accepted."""
        names = {*self._acceptance.names, *self.session.unfinished}
        if self._acceptance:
            await asyncio.sleep(0)  # as there: a time limit needs a task
            with suppress(TimeoutError):  # what runs is not to go on for as long as a store takes
                async with asyncio.timeout(self.session.options.interrupt_grace):
                    await self._acceptance.passed()
        late = names.intersection(self._acceptance.names)
        for execution in late:
            self._acceptance.cancel(execution)
        return len(late) + await self.session.cancel_all(names)

    async def line_up(
        self, ledger: Ledger, entry: Entry, request: ExecuteRequest, *, stopped: bool = False
    ) -> EventLog | None:
        """An accepted execution; None: the session has ended meanwhile, which is written down as its verdict.

        One that is `stopped` ends at once: another one has stopped its batch before it came.
        """
        execution, started = execution_of(entry.promise), entry.promise.started_at is not None
        try:
            clearance = None if started else self._clearance(execution)
            made = self.session.submit(request, execution, clearance=clearance, accepted=True, stopped=stopped)
        except CapsuleError as error:
            why = error
            await until_committed(execution, lambda: ledger.give_up(entry.promise, why, started=False))
            return None
        made.inputs.consult(ledger.inquiries.clerk(self.session.id, self.owner))
        if entry.begun:
            made.begin()
        fence = entry.promise.fence if started else None
        return self._begin(made, fence, ledger=ledger, written=int(entry.begun))

    def go_on(self, ledger: Ledger, promise: Promise, execution: Execution) -> None:
        """An execution that the worker has from an earlier node: what it tells from here on is written down."""
        execution.inputs.consult(ledger.inquiries.clerk(self.session.id, self.owner, inherited=True))
        self._begin(execution, promise.fence, ledger=ledger, after=execution.told)

    def _known(self, request: ExecuteRequest, execution: str, key: str | None) -> EventLog | None:
        known = self.logs.get(execution)
        if known is not None and self.ledger is not None:
            self.ledger.compare(self.session.id, known.execution.request, request, execution, key)
        elif known is not None:
            check_same(known.execution.request, request, key, execution)
        elif len(self.logs) + len(self._acceptance) >= MAX_LOGS:
            raise SessionError("queue_full", f"{MAX_LOGS} executions have verdicts that no client has acknowledged")
        return known

    def _begin(self, execution: Execution, fence: Fence | None = None, **how: Any) -> EventLog:
        log = self.logs[execution.id] = EventLog(execution, self._on_event, session=self.session.id, **how)
        if log.scribe is not None:
            log.scribe.fence, log.scribe.complete = fence, self.complete  # before it writes anything
        self._unfinished[log] = None
        self._give(log, log.client)
        if not self._has(log.client):  # it has gone while this was being accepted
            log.loosen(True)  # noqa: FBT003 - positional only
        log.pump()
        return log

    def _clearance(self, execution: str) -> Callable[[], object]:
        return lambda: self._tasks.start(self._start(execution))

    async def _start(self, execution: str) -> None:
        """It is due: its start is written down before it is sent."""
        log, ledger, promise, epoch = self.logs[execution], self.ledger, promise_id(execution), self.session.epoch
        assert log.scribe is not None
        assert ledger is not None
        try:
            await log.scribe.start(lambda: ledger.begin(promise, self.session.id, epoch))
        except CapsuleError as error:  # it is another node's, or the store has been closed
            logger.warning("execution %s is not started: %s", execution, error)
            if error.code == "store_damaged":
                self.session.give_up(execution, unreadable())
                return
            log.scribe.give_way()
            await self.session.cancel(execution)
            with suppress(CapsuleError):
                await ledger.begun_before(promise, self.session.id, self.session.epoch)
        else:
            log.execution.release()

    def holds(self, execution: str, client: str) -> bool:
        """Whether it is this client's, or could be, because whoever has asked for it has not got the session."""
        log = self.logs.get(execution)
        asker = self._acceptance.client_of(execution) if log is None else log.client
        return asker in {"", client} or not self._has(asker)

    def take_up(self, log: EventLog, client: str) -> None:
        """This client follows it from now on: it is its own, unless it is another one's."""
        if self.holds(log.execution.id, client):
            self._give(log, client)
            log.loosen(False)  # noqa: FBT003 - positional only

    def acknowledge(self, execution: str, number: int, client: str) -> None:
        """This client has dealt with the events up to this one; it counts if the execution is its own."""
        log = self.logs.get(execution)
        if log is not None and self.holds(execution, client):
            log.acknowledge(number)
            self._drop_if_over(execution, log)

    def attach(self, reader: Reader) -> None:
        """This connection reads from now on. Of another client, it may not know what runs: that waits for nobody."""
        self._stop_timer()
        self._detached = False
        before, self.reader = self.reader, reader
        if before is not None and before is not reader:
            message = f"another client has taken the session {self.session.name!r} over"
            before.on_closed(self, SessionError("session_taken", message))
        if reader.client != self._client:
            self._client = reader.client
            self._loosen(but=self._sharers)
            self._let_go()

    def expect(self, lifetime: float) -> None:
        """Who opened the session was gone before it was there: its client may come for it, in so many seconds."""
        if not self._client:
            self._start_timer(lifetime)

    def detach(self, lifetime: float | None) -> None:
        """Nobody reads, on purpose: executions wait for nobody. The session is closed after `lifetime` seconds."""
        self.reader, self._detached = None, True
        self._loosen(but=self._sharers)
        self._start_timer(lifetime)

    def lose(self, reader: Reader, lifetime: float) -> None:
        """The connection is gone: executions wait for its client to come back, at most this many seconds."""
        if self.reader is reader:
            self.reader = None
            self._start_timer(lifetime)

    def share(self, sharer: Reader) -> None:
        """Let this connection use the session beside its reader. Raises SessionError `too_many_watchers`."""
        self._check_watchers()
        self._sharers.add(sharer)

    def unshare(self, sharer: Reader) -> None:
        """It uses the session no more: what it has asked for goes on, and waits for nobody. Idempotent."""
        if self._sharers.remove(sharer):
            for log in self.logs.values():
                if log.client == sharer.client:
                    log.loosen(True)  # noqa: FBT003 - positional only
            self._let_go()

    def watch(self, onlooker: Onlooker) -> Watch:
        """Tell also this connection what executions tell. Raises SessionError `too_many_watchers`."""
        self._check_watchers()
        watch = Watch(self, onlooker)
        self._watches.append(watch)
        return watch

    def unwatch(self, watch: Watch) -> None:
        """Tell it nothing more. Idempotent."""
        if watch in self._watches:
            self._watches.remove(watch)

    async def close(self) -> None:
        """End the session; who watches is told, behind the verdicts of what ran. Idempotent."""
        await self._end(SessionError("session_closed", f"the session {self.session.name!r} has been closed"))
        self._be_over()

    async def kill(self, error: SessionError | None = None) -> None:
        """End the session under whoever reads it; all are told, behind the verdicts of what ran. Idempotent.

        The error says why; without it, an operator wants it so.
        """
        error = error or SessionError("session_killed", f"an operator has ended the session {self.session.name!r}")
        await self._end(error)
        if self.reader is not None:
            await self.hear_last_words()
        self._loosen()
        reader, self.reader = self.reader, None
        if reader is not None:
            reader.on_closed(self, error)
        self._be_over()

    async def _end(self, error: SessionError) -> None:
        self._stop_timer()
        await self.session.close()
        if self._watches or self._sharers:
            self._loosen()
            await self.hear_last_words()
        self._sharers.end(self, error)
        watches, self._watches = self._watches, []
        for watch in watches:
            watch.onlooker.on_watched_closed(self.session.id, error)

    def _be_over(self) -> None:
        """What its reader has not taken by now, nobody waits for."""
        self._closed = True
        self._quiet.set()

    async def hear_last_words(self) -> None:
        """Wait, but not for long, until the verdicts of all executions have been told."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORDS):
                while not self._finished:
                    await self._change()

    async def settled(self) -> None:
        """Wait until all that was asked for has its verdict, and its reader was told, or the session is closed."""
        while not (self._finished or self._closed):
            await self._change()

    @property
    def _finished(self) -> bool:
        return not (self._unfinished or self._acceptance)

    async def _change(self) -> None:
        self._quiet.clear()
        await self._quiet.wait()

    def _has(self, client: str) -> bool:
        """Whether it is a sharer, or whoever reads, or has only lost its connection; or nobody knows who it is."""
        return client in self._sharers or (not self._detached and client in {"", self._client})

    def _give(self, log: EventLog, client: str) -> None:
        log.client = client
        self._sharers.note(log.execution.id, client)

    def _check_watchers(self) -> None:
        if len(self._watches) + len(self._sharers) >= MAX_WATCHERS:
            raise SessionError("too_many_watchers", f"{MAX_WATCHERS} clients watch or share the session already")

    def _loosen(self, but: Container[str] = ()) -> None:
        """What runs waits for no acknowledgement, except for what is one of these clients'."""
        for log in self.logs.values():
            if log.client not in but:
                log.loosen(True)  # noqa: FBT003 - positional only

    def _remember(self, execution: str) -> None:
        self._kept.append(execution)
        if len(self._kept) > MAX_KEPT:
            oldest = self._kept.popleft()
            log = self.logs[oldest]
            log.keep = False
            self._drop_if_over(oldest, log)

    def _let_go(self) -> None:
        for log in list(self.logs.values()):
            self._let_go_if_left(log)

    def _let_go_if_left(self, log: EventLog) -> None:
        """Who has left may never come back: of what has ended for them, only so much is kept."""
        if not (log.ended and self._is_left(log)):
            return
        self._left.pop(log.execution.id, None)
        self._left[log.execution.id] = None
        if len(self._left) > MAX_LEFT:
            oldest = next(iter(self._left))
            del self._left[oldest]
            left = self.logs.get(oldest)
            if left is not None and self._is_left(left):
                left.acknowledge(left.last)
                self._drop_if_over(oldest, left)

    def _is_left(self, log: EventLog) -> bool:
        """Whether it is of a client that neither shares the session nor was the last one to drive it."""
        return log.client not in {"", self._client} and log.client not in self._sharers

    def _drop_if_over(self, execution: str, log: EventLog) -> None:
        if log.over:
            del self.logs[execution]
            self.followed.dropped(log)

    def _on_event(self, log: EventLog, event: Event) -> None:
        if isinstance(event, Finished):
            self._unfinished.pop(log, None)
            self._quiet.set()
            if self.on_verdict is not None:
                self.on_verdict(event.verdict)
            if log.overruled:
                self._tasks.start(self.session.cancel(log.execution.id))
            self._let_go_if_left(log)
        if self.reader is not None:
            self.reader.on_event(self.session.id, log, event)
        self._sharers.on_event(self.session.id, log, event)
        for watch in list(self._watches):
            watch.on_event(log, event)
        self._aside.go_on()

    def _on_background(self, event: Event) -> None:
        reader = self._sharers.who_reads(event.execution_id, self.reader)
        if reader is not None:
            reader.on_background(self.session.id, event)
        if self._watches:
            self._aside.add(event, self._unfinished)

    def _tell_aside(self, event: Event) -> None:
        for watch in list(self._watches):
            watch.on_background(event)

    def _on_state(self, state: str, reason: str) -> None:
        if self.reader is not None:
            self.reader.on_state(self.session.id, state, reason)
        self._sharers.on_state(self.session.id, state, reason)
        for watch in list(self._watches):
            watch.onlooker.on_state(self.session.id, state, reason)

    def _start_timer(self, lifetime: float | None) -> None:
        self._stop_timer()
        if lifetime is not None:
            self._timer = self._loop.call_later(lifetime, self._expire, self)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


async def _that(log: EventLog) -> EventLog:
    return log
