"""What may become of a member and of a breaker: tables of {state: {event: next state}}, and nothing else may.

The code takes its steps from them, and `capsule_pool.diagrams` draws them for the documentation.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

BreakerState = Literal["closed", "open", "half_open"]
BreakerEvent = Literal["attempt", "success", "failure", "too_many_failures", "failure_of_the_probe"]
MemberState = Literal["starting", "idle", "in_use", "closing", "gone"]
MemberEvent = Literal[
    "made", "failed", "rejected", "abandoned", "assigned", "left", "died", "evicted", "released", "pool_closed", "ended"
]

MEMBER: Final[Mapping[MemberState, Mapping[MemberEvent, MemberState]]] = {
    # Rejected: it is over its budget, or the pool has been closed meanwhile. Abandoned: the pool closes.
    "starting": {"made": "idle", "failed": "gone", "rejected": "closing", "abandoned": "gone"},
    "idle": {"assigned": "in_use", "evicted": "closing", "died": "closing", "pool_closed": "closing"},
    # Left: the waiter that it was given to left without having seen it. A dead one is its user's until released.
    "in_use": {"released": "closing", "left": "idle", "died": "in_use", "pool_closed": "closing"},
    "closing": {"ended": "gone"},
    "gone": {},
}

BREAKER: Final[Mapping[BreakerState, Mapping[BreakerEvent, BreakerState]]] = {
    # Attempts from before the breaker opened may end at any time: a success counts, a failure decides nothing. So the
    # probe may fail when another attempt has closed the breaker, or when failures have opened it once more since.
    "closed": {
        "attempt": "closed",
        "success": "closed",
        "failure": "closed",
        "too_many_failures": "open",
        "failure_of_the_probe": "open",
    },
    "open": {"attempt": "half_open", "success": "closed", "failure": "open", "failure_of_the_probe": "open"},
    "half_open": {"success": "closed", "failure": "half_open", "failure_of_the_probe": "open"},
}

TABLES: Final[Mapping[str, Mapping[Any, Mapping[Any, str]]]] = {"member": MEMBER, "breaker": BREAKER}


class Census:
    """How many members are in each state. Each is counted through its life, and the table allows no other."""

    def __init__(self) -> None:
        self.sizes: Counter[MemberState] = Counter()

    def begin(self) -> None:
        """One is being made."""
        self.sizes["starting"] += 1

    def move(self, state: MemberState, event: MemberEvent) -> None:
        """This has become of one that was in this state. Raises KeyError if it cannot."""
        following = MEMBER[state][event]
        self.sizes[state] -= 1
        self.sizes[following] += 1
