"""What goes into a store and what comes out of it. Times are milliseconds since 1970, values are the caller's bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from capsule_bridge.states import PENDING, Action, State

HOUR = 3_600_000
"""Milliseconds."""


class Fence(NamedTuple):
    """Who owns a promise: the epoch in which it was started last, and how many times it has been started."""

    epoch: int
    version: int


class Claim(NamedTuple):
    """That the promise `id` belongs to whoever has this fence: what is done under a claim is done only if it does."""

    id: str
    fence: Fence


class Lease(NamedTuple):
    """Who owns what is called `name`; `version` is higher than that of every lease before."""

    name: str
    owner: str
    version: int


class NewPromise(NamedTuple):
    """A promise to be made.

    `key` is an idempotency key, one for each principal and session. `timeout_at`: when it times out, or never. A
    promise with a `parent` is canceled when its parent is settled. With an `epoch` it is started as it is made.
    `log`: the first events of its log. Under a `claim` it is made only while that holds; it is not kept.
    """

    id: str
    kind: str
    session: str
    fingerprint: bytes
    param: bytes = b""
    principal: str = ""
    key: str | None = None
    parent: str | None = None
    timeout_at: int | None = None
    epoch: int | None = None
    log: tuple[bytes, ...] = ()
    claim: Claim | None = None


class Promise(NamedTuple):
    """A promise at one moment."""

    id: str
    kind: str
    session: str
    fingerprint: bytes
    param: bytes
    principal: str
    key: str | None
    parent: str | None
    timeout_at: int | None
    created_at: int
    state: State = PENDING
    value: bytes = b""
    epoch: int = 0
    version: int = 0
    started_at: int | None = None
    settled_at: int | None = None

    @property
    def pending(self) -> bool:
        """Whether it has no verdict yet."""
        return self.state == PENDING

    @property
    def fence(self) -> Fence:
        """Who owns it."""
        return Fence(self.epoch, self.version)


class Settlement(NamedTuple):
    """A verdict to be given. With a fence it counts only while the promise belongs to the fence's owner.

    Under a `claim` it counts only while that holds. `log`: the events with which the log ends, behind number `after`;
    they are logged if the verdict counts.
    """

    id: str
    action: Action
    value: bytes = b""
    fence: Fence | None = None
    log: tuple[bytes, ...] = ()
    after: int = 0
    claim: Claim | None = None


class Created(NamedTuple):
    """The promise that was asked for; `fresh`: it was made by this call, and not attached to."""

    promise: Promise
    fresh: bool


class Started(NamedTuple):
    """The promise with its new owner. Only if this was the `first` start may what it stands for be done."""

    promise: Promise
    first: bool


class Settled(NamedTuple):
    """The promise with its verdict; `decided`: the verdict is this call's."""

    promise: Promise
    decided: bool


class LoggedEvent(NamedTuple):
    """One event of a log."""

    sequence: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Log:
    """A part of a log. `first` is the oldest number that is kept, `last` the newest; what lies before was trimmed."""

    first: int
    last: int
    events: tuple[LoggedEvent, ...]


@dataclass(frozen=True, slots=True)
class Retention:
    """How long settled promises are kept, and how long it is remembered afterwards that they have been."""

    results: int = 24 * HOUR
    tombstones: int = 7 * 24 * HOUR


@dataclass(frozen=True, slots=True)
class Expired:
    """What one `expire` did; `more`: it reached its bound, so call it again."""

    timed_out: tuple[str, ...] = ()
    forgotten: tuple[str, ...] = ()
    more: bool = False
