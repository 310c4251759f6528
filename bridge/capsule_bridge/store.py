"""The protocol of promise stores. `tests/unit/bridge/contract.py` says what each of them has to hold.

* Nothing is answered before it is committed, at the store's level of durability. That goes for what is read, too.
* Each call is one transaction: it is done wholly or not at all.
* A call that is canceled may have been done or not; it is never done twice, and never half.
* The time is an argument. A store never looks at a clock.
* A store that cannot commit raises `store_unavailable`, and is used again as soon as it can.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from capsule_bridge.records import (
        Claim,
        Created,
        Expired,
        Fence,
        Lease,
        Log,
        NewPromise,
        Promise,
        Retention,
        Settled,
        Settlement,
        Started,
    )

PAGE = 1_000
"""How many events or promises are read at once, and how many expire at once, unless told otherwise."""


READ_BYTES = 8 * 2**20
"""A part of a log ends with the event that reaches this, however many were asked for."""


class PromiseStore(Protocol):
    """Durable promises and the logs of their events."""

    @property
    def failure(self) -> Exception | None:
        """Why nothing can be written; None as soon as something has been written again."""

    async def create(self, new: NewPromise, *, now: int) -> Created:
        """Make a promise, or find the one that the same request has made before.

        Raises SessionError: `idempotency_conflict`, `promise_expired`; `promise_unknown` and `promise_settled` of the
        parent; `promise_unknown` and `promise_fenced` of its claim.
        """

    async def start(
        self,
        id: str,  # noqa: A002  the field's name
        *,
        epoch: int,
        now: int,
        again: bool = True,
        claim: Claim | None = None,
    ) -> Started:
        """Say, before it is done, that what the promise stands for is being done; its fence is the answer's.

        Each start takes the promise over; unless `again`, one that was started before stays whose it is.
        Raises SessionError: `promise_unknown`, `promise_expired`, `promise_fenced` if it belongs to a newer epoch; the
        first and the last of them of the claim, too.
        """

    async def settle(self, *settlements: Settlement, now: int) -> list[Settled]:
        """Give verdicts, in this order and in one transaction. Pending children are canceled with their parents.

        Raises SessionError, and nothing is done: `promise_unknown`, `promise_expired`, `promise_fenced`, of claims too;
        and, as `append` does, LocalProtocolError: `sequence_gap`.
        """

    async def append(
        self,
        id: str,  # noqa: A002
        events: Sequence[bytes],
        *,
        after: int,
        fence: Fence | None = None,
    ) -> int:
        """Log events as the numbers behind `after`, and answer the log's last one. Repeating a call changes nothing.

        Raises SessionError: `promise_unknown`, `promise_expired`, `promise_settled`, `promise_fenced`; and
        LocalProtocolError: `sequence_gap` if the log does not end at `after`.
        """

    async def trim(self, id: str, upto: int) -> None:  # noqa: A002
        """Forget the events up to this number: they have been acknowledged, or the log is over its bound."""

    async def get(self, id: str, *, now: int) -> Promise:  # noqa: A002
        """The promise. A time-out that is due is written down before it is told.

        A settled one has no `param` if that cannot be read any more. Raises SessionError: `promise_unknown`,
        `promise_expired`.
        """

    async def read(self, id: str, *, after: int, limit: int = PAGE) -> Log:  # noqa: A002
        """The events behind `after`, oldest first, up to `limit` or about `READ_BYTES`; there are more until `last`.

        A reader sees by `first` whether something was trimmed, and with the limit 0 how far it goes and nothing else.

        Raises SessionError: `promise_unknown`, `promise_expired`.
        """

    async def pending(
        self, *, now: int, session: str | None = None, after: str = "", limit: int = PAGE
    ) -> list[Promise]:
        """Promises without a verdict, in the order of their making; `after` is the id that the last call ended with."""

    async def expire(self, *, now: int, retention: Retention, limit: int = PAGE) -> Expired:
        """Write down time-outs that are due; forget what has been kept long enough, and later that it was."""

    async def close(self) -> None:
        """Finish what was asked for and let go of all; idempotent. Later calls raise `store_closed`."""


@runtime_checkable
class Watched(Protocol):
    """What a store has besides if several nodes may share it: it tells of what any of them did.

    A node that shares no store learns all of it from its own calls.
    """

    def subscribe(
        self, heard: Callable[[Collection[str]], None], waiting: Callable[[], Collection[str]]
    ) -> Callable[[], None]:
        """Call `heard` with ids of promises whose verdict or log has changed, once committed; answers how to end it.

        These are hints: whoever waits for one of the ids asks the store for it. Some may come twice, and some that
        nobody waits for. `waiting` answers the ids that are waited for: they are looked at from time to time, and told
        without a look after a connection was lost, so that a hint which got lost only comes late. Both are called in
        the event loop in which `subscribe` was.
        """


@runtime_checkable
class Salvaging(Protocol):
    """What a store has besides if single values of it may be lost or damaged while the rest is whole."""

    async def salvage(self, *, now: int, after: str = "") -> tuple[list[Promise], list[Promise]]:
        """All promises without a verdict, oldest first: those that can be read, and the others without what cannot be.

        With `after` only those that were made behind it. The others can be settled as if nothing were wrong.
        """


@runtime_checkable
class Leases(Protocol):
    """What a store has besides if several nodes may share it: who of them owns what, by the one clock that they share.

    A lease counts until its time is over by the store's own clock, whatever the nodes' clocks say.
    """

    async def acquire(self, name: str, owner: str, *, seconds: float) -> Lease | None:
        """Take what is free, was not renewed in time, or is this owner's own already; None if another one has it.

        Every lease has a higher version than all before it: as an epoch it fences those who had it earlier.
        """

    async def renew(self, lease: Lease, *, seconds: float) -> bool:
        """Keep it for so long from now; False if it has been released or belongs to somebody else."""

    async def release(self, lease: Lease) -> None:
        """Give it back, if it is still ours."""

    async def lapsed(self, prefix: str) -> list[str]:
        """The names that begin so of leases which nobody has renewed in time, nor taken since, for a day."""
