"""What is asked of a session, on its way to the line-up: written down side by side, and lined up in order."""

from __future__ import annotations

import asyncio
from itertools import islice, takewhile
from typing import TYPE_CHECKING, NamedTuple, Protocol

from capsule.node.durable.records import execution_of
from capsule.node.lineup import WINDOW
from capsule_protocol.errors import CapsuleError, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Coroutine

    from capsule.node.durable import Entry, Ledger
    from capsule.node.durable.intake import Intake
    from capsule.node.execution import ExecuteRequest
    from capsule.node.front.followed import Followed
    from capsule.node.front.log import EventLog
    from capsule.node.session import Session

MAX_DOUBTFUL = 10_000
"""Executions of which it is not known whether the store has them, because it has failed; the oldest are forgotten."""


class Host(Protocol):
    """What it needs of the session that it is for."""

    session: Session
    owner: str
    logs: dict[str, EventLog]
    followed: Followed

    async def line_up(self, ledger: Ledger, entry: Entry, request: ExecuteRequest, *, stopped: bool) -> EventLog | None:
        """Line up an accepted execution, unless it is `stopped`."""


class _Place(NamedTuple):
    """A place in the order of acceptance: behind one, before another."""

    before: asyncio.Event
    passed: asyncio.Event


class Acceptance:
    """One for each session of a node that writes down. `on_change` is called whenever something has left it."""

    def __init__(self, host: Host, on_change: Callable[[], object]) -> None:
        self._host = host
        self._on_change = on_change
        self._under_way: dict[str, ExecuteRequest] = {}
        self._places: dict[_Place, ExecuteRequest] = {}  # in their order; one that is asked for twice has two
        self._intake: Intake | None = None
        self._cancelled: set[str] = set()
        self._doubtful: dict[str, None] = {}
        self._last = asyncio.Event()
        self._last.set()

    def __len__(self) -> int:
        return len(self._under_way)

    def __contains__(self, execution: str) -> bool:
        return execution in self._under_way

    @property
    def names(self) -> Collection[str]:
        """Which executions that are."""
        return self._under_way.keys()

    def client_of(self, execution: str) -> str:
        """Who has asked for it, "" if it is none of them."""
        request = self._under_way.get(execution)
        return "" if request is None else request.client

    @property
    def requests(self) -> Collection[ExecuteRequest]:
        """What is being written down, in its order."""
        return self._under_way.values()

    async def passed(self) -> None:
        """Have all that was asked for before lined up, or refused, and wait for it."""
        self._hurry()
        await self._last.wait()

    def cancel(self, execution: str) -> None:
        """One of them is not wanted any more: it is cancelled when it is lined up, which is soon."""
        self._cancelled.add(execution)
        self._hurry()

    def take(
        self, ledger: Ledger, request: ExecuteRequest, execution: str, key: str | None
    ) -> Coroutine[None, None, EventLog | None]:
        """It counts from now on; its log, when it is lined up; None: it is in the ledger only.

        Raises as `Session.check` does, at once; what is waited for raises SessionError `idempotency_conflict` and
        `promise_expired`, and StoreError.
        """
        try:
            self._host.session.check(request, self.requests)
        except CapsuleError as refusal:
            if key is None:
                raise
            return self._again_or(refusal, ledger, request, execution, key)
        place = _Place(self._last, asyncio.Event())
        self._last = place.passed
        self._intake = ledger.intake
        self._places[place] = request
        self._under_way.setdefault(execution, request)
        return self._write_down(ledger, request, execution, key, place)

    async def _write_down(
        self, ledger: Ledger, request: ExecuteRequest, execution: str, key: str | None, place: _Place
    ) -> EventLog | None:
        host = self._host
        try:
            async with ledger.intake.admitted(host.session.id):
                ahead = self._ahead_of(place)
                entry = await ledger.accept(host.session, host.owner, request, execution, key=key, ahead=ahead)
            await place.before.wait()
            if self._was_left(entry):
                entry = await ledger.left(entry.promise)  # whoever asks too waits until it is lined up
            stopped = entry.fresh and await host.followed.stopping(request)  # the last that is waited for
        except StoreError as error:
            self._doubt(execution)
            ledger.intake.hurry_all()
            if key is None and error.retryable and error.details.get("outcome") != "not_done":
                raise _doubtful(error) from error
            raise
        finally:
            await place.before.wait()
            del self._places[place]
            self._under_way.pop(execution, None)
            cancelled = execution in self._cancelled
            self._cancelled.discard(execution)
            self._on_change()
            place.passed.set()
        if not entry.fresh:
            return host.logs.get(execution)
        log = await host.line_up(ledger, entry, request, stopped=stopped)
        if cancelled:
            await host.session.cancel(execution)
        return log

    async def _again_or(
        self, refusal: CapsuleError, ledger: Ledger, request: ExecuteRequest, execution: str, key: str
    ) -> EventLog | None:
        """What is refused now may have been accepted once: then that is the answer."""
        if not await ledger.known(self._host.session.id, request, execution, key):
            raise refusal
        return self._host.logs.get(execution)

    def _ahead_of(self, place: _Place) -> list[ExecuteRequest]:
        """Those before it that are not lined up yet; not more than those of them that are next."""
        ahead = takewhile(lambda other: other is not place, self._places)
        return [self._places[other] for other in islice(ahead, WINDOW)]

    def _hurry(self) -> None:
        if self._intake is not None:
            self._intake.hurry(self._host.session.id)

    def _doubt(self, execution: str) -> None:
        """The store has failed, and may have written it down all the same: whoever asks again will find it then."""
        self._doubtful[execution] = None
        if len(self._doubtful) > MAX_DOUBTFUL:
            del self._doubtful[next(iter(self._doubtful))]

    def _was_left(self, entry: Entry) -> bool:
        """Whether it is to be run though it was found, because the call that made it is said to have failed."""
        execution = execution_of(entry.promise)
        doubtful = self._doubtful.pop(execution, False) is None
        return doubtful and not entry.fresh and entry.promise.pending and execution not in self._host.logs


def _doubtful(error: StoreError) -> StoreError:
    """Of what has no key: the store may have it, and then it is run; to ask again is to ask for another one."""
    hint = "Look whether it was run before you ask again. What has an idempotency key can be asked for again at once."
    return StoreError(error.code, error.message, hint=hint, retryable=False, details=error.details)
