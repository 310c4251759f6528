"""What a pool holds and who makes it: the pool knows no more of a worker than this."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol, TypeVar

if TYPE_CHECKING:
    import asyncio


class Member(Protocol):
    """Something that is made ahead, used once and closed; for the node, a prepared worker."""

    @property
    def died(self) -> asyncio.Future[str]:
        """Done when it has ended, however; the result says why, in a word or two. Nobody cancels it."""

    def memory(self) -> int:
        """The bytes that it holds for itself alone; asked only when it is new, and only for a pool with a budget."""

    async def close(self) -> None:
        """End it and wait until nothing of it is left. Idempotent; works on a dead one too."""


SHORTAGES: Final = frozenset({"descriptors_exhausted"})
"""Codes of errors that tell of this process, and not of what it makes."""

M = TypeVar("M", bound=Member)
M_co = TypeVar("M_co", bound=Member, covariant=True)


class Factory(Protocol[M_co]):
    """Makes members. It is called by several tasks at once."""

    async def create(self) -> M_co:
        """A member that is ready for use.

        What it raises is a failed creation: an error with a true `retryable` is tried again for whoever waits, any
        other is told to one of them, and so is one whose `code` is in SHORTAGES, which the breaker does not count. When
        it is cancelled, nothing is left.
        """
