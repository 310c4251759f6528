"""What a bridge counts: promises by what became of them, requests that were repeated, and how long commits take."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING

from capsule_bridge.states import CANCELED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from capsule_bridge.records import Created, NewPromise, Promise

SAMPLES = 1_000
"""Commits whose times are remembered."""


@dataclass(frozen=True, slots=True)
class BridgeInfo:
    """A bridge as it is now. Times are seconds; `verdicts` by state; `oldest` is the age of the oldest pending promise.

    `pending` and `high_water` count what this node has accepted or taken over and what has no verdict yet. Interceptors
    that are `quarantined` are not called any more. `failing`: why the store could not commit the last time.
    `clock_ahead`: by how much the clock that promises are dated with is ahead of the machine's.
    """

    pending: int
    high_water: int
    oldest: float
    accepted: int
    verdicts: dict[str, int]
    events: int
    dedup_hits: int
    conflicts: int
    commit_p50: float
    commit_p99: float
    quarantined: tuple[str, ...] = ()
    failing: str = ""
    clock_ahead: float = 0.0


@dataclass(frozen=True, slots=True)
class SessionPromises:
    """What belongs to one session: its executions, and what they ask of people. Else as in `BridgeInfo`.

    What commits take is the store's, which all sessions share.
    """

    pending: int
    high_water: int
    oldest: float
    accepted: int
    verdicts: dict[str, int]
    dedup_hits: int
    conflicts: int
    commit_p50: float = 0.0
    commit_p99: float = 0.0


@dataclass(slots=True)
class _Tally:
    """The counters of a bridge, or of one session. `pending`: when each was made, oldest first."""

    pending: dict[str, int] = field(default_factory=dict)
    high_water: int = 0
    accepted: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    dedup_hits: int = 0
    conflicts: int = 0

    def add(self, promise: Promise) -> None:
        self.pending[promise.id] = promise.created_at
        self.high_water = max(self.high_water, len(self.pending))

    def oldest(self, now: int) -> float:
        """The age in seconds of what is pending for the longest."""
        return max(0, now - next(iter(self.pending.values()), now)) / 1000


class Stats:
    """The counters. They are of this node's life, not of the store's."""

    def __init__(self) -> None:
        self.events = 0
        self._all = _Tally()
        self._sessions: dict[str, _Tally] = {}  # from the promise of the session to its verdict
        self._session_of: dict[str, str] = {}  # of what is pending
        self._children: dict[str, list[str]] = {}
        self._times: deque[float] = deque(maxlen=SAMPLES)

    def accepted(self, created: Created) -> None:
        """A promise was made, or found."""
        if created.fresh:
            self.took_over(created.promise)
        for tally in self._tallies(created.promise):
            tally.accepted += created.fresh
            tally.dedup_hits += not created.fresh

    def took_over(self, promise: Promise) -> None:
        """A pending promise is this node's, which it has made or found in its store."""
        if not promise.pending:
            return
        for tally in self._tallies(promise):
            tally.add(promise)
        self._session_of[promise.id] = promise.session
        if promise.kind == "session":
            self._sessions.setdefault(promise.session, _Tally())
        if promise.parent is not None:
            self._children.setdefault(promise.parent, []).append(promise.id)

    def refused(self, new: NewPromise, code: str) -> None:
        """A promise was not made."""
        for tally in self._tallies(new):
            tally.conflicts += code == "idempotency_conflict"

    def asked_again(self, session: str, *, same: bool) -> None:
        """What is under way, or was found, in a session was asked for again, or something else under its name."""
        tallies = [self._all, self._sessions.get(session)]
        for tally in filter(None, tallies):
            tally.dedup_hits += same
            tally.conflicts += not same

    def awaits(self, id_: str) -> bool:
        """Whether a promise of this node has no verdict yet, as far as is counted."""
        return id_ in self._all.pending

    def settled(self, promise: Promise) -> Sequence[str]:
        """A verdict was given. Answers the children that have ended with it, and are not counted yet."""
        for tally in self._tallies(promise):
            tally.verdicts[promise.state] += 1
        self._gone(promise.id)
        if promise.kind == "session":
            self._sessions.pop(promise.session, None)
        return [child for child in self._children.pop(promise.id, ()) if self.awaits(child)]

    def lost(self, id_: str, state: str) -> None:
        """It has ended in this state, and is not to be read any more. Only once."""
        if self.awaits(id_):
            session = self._sessions.get(self._session_of[id_])
            for tally in (self._all, session):
                if tally is not None:
                    tally.verdicts[state] += 1
            self._gone(id_)
            for child in self._children.pop(id_, ()):
                self.lost(child, CANCELED)

    def took(self, seconds: float) -> None:
        """So long a caller waited for a commit."""
        self._times.append(seconds)

    def info(self, now: int, quarantined: tuple[str, ...] = ()) -> BridgeInfo:
        """All of it, at a time in milliseconds."""
        p50, p99 = self._commits()
        return BridgeInfo(
            pending=len(self._all.pending),
            high_water=self._all.high_water,
            oldest=self._all.oldest(now),
            accepted=self._all.accepted,
            verdicts=dict(self._all.verdicts),
            events=self.events,
            dedup_hits=self._all.dedup_hits,
            conflicts=self._all.conflicts,
            commit_p50=p50,
            commit_p99=p99,
            quarantined=quarantined,
        )

    def of_session(self, session: str, now: int) -> SessionPromises | None:
        """What belongs to a session, at a time in milliseconds; None if its promise is not this node's, or settled."""
        tally = self._sessions.get(session)
        if tally is None:
            return None
        p50, p99 = self._commits()
        return SessionPromises(
            pending=len(tally.pending),
            high_water=tally.high_water,
            oldest=tally.oldest(now),
            accepted=tally.accepted,
            verdicts=dict(tally.verdicts),
            dedup_hits=tally.dedup_hits,
            conflicts=tally.conflicts,
            commit_p50=p50,
            commit_p99=p99,
        )

    def _commits(self) -> tuple[float, float]:
        """What the last ones took, in seconds: the median, and all but one of a hundred."""
        times = sorted(self._times)
        return (median(times), times[len(times) * 99 // 100]) if times else (0.0, 0.0)

    def _tallies(self, promise: NewPromise | Promise) -> list[_Tally]:
        """Where a promise counts; that of the session itself does not count as its own."""
        session = None if promise.kind == "session" else self._sessions.get(promise.session)
        return [self._all] if session is None else [self._all, session]

    def _gone(self, id_: str) -> None:
        self._all.pending.pop(id_, None)
        session = self._sessions.get(self._session_of.pop(id_, ""))
        if session is not None:
            session.pending.pop(id_, None)
