"""Calls that are written down, so that none that may have taken effect is made twice."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from capsule.broker.attempt import Attempt, Outcome


class Book(Protocol):
    """What a node with a durable store keeps of calls that change something."""

    async def find(self, attempt: Attempt) -> Outcome | None:
        """Write down that it is asked for; the outcome, if it has one already.

        Raises CapabilityFailed `capability_uncertain` if it was begun and nobody knows how it ended.
        """

    async def begin(self, attempt: Attempt) -> None:
        """Write down that it is made from now on. Raises CapabilityFailed `capability_uncertain` if it was before."""

    async def end(self, attempt: Attempt, outcome: Outcome) -> Outcome:
        """Write down what became of it; answers what counts."""
