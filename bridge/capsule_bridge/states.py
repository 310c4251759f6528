"""What may become of a promise, as one table: {state: {action: next state}}.

The states are Resonate's. A promise begins pending and is settled once: every action on a settled promise leads to the
state in which it is. So whoever settles it second hears the first verdict, and nobody has to ask before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

State = Literal["pending", "resolved", "rejected", "rejected_canceled", "rejected_timedout"]
Action = Literal["resolve", "reject", "cancel"]
"""What a caller may do."""
AnyAction = Literal["resolve", "reject", "cancel", "time_out"]
"""`time_out` belongs to the store: it happens at the moment that the promise was made for, whoever looks at it next."""

PENDING: Final = "pending"
TIMED_OUT: Final = "rejected_timedout"
CANCELED: Final = "rejected_canceled"


def _stay(state: State) -> Mapping[AnyAction, State]:
    return {"resolve": state, "reject": state, "cancel": state, "time_out": state}


PROMISE: Final[Mapping[State, Mapping[AnyAction, State]]] = {
    PENDING: {"resolve": "resolved", "reject": "rejected", "cancel": CANCELED, "time_out": TIMED_OUT},
    "resolved": _stay("resolved"),
    "rejected": _stay("rejected"),
    CANCELED: _stay(CANCELED),
    TIMED_OUT: _stay(TIMED_OUT),
}
