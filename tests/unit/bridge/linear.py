"""Is there an order of concurrent calls that explains every answer? The search of Wing and Gong, for one promise.

A promise is written once, so few orders have to be tried; the rest are told apart by what has been tried already.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Call:
    """A call and its answer. `begin` and `end` come from one counter; a call that never ended may come at any time."""

    what: str
    argument: Any
    answer: Any
    begin: int
    end: float


@dataclass(frozen=True)
class State:
    """What is known of the promise: None, pending, or its verdict; and how often it has been started."""

    verdict: str | None = None
    starts: int = 0


def explained(history: list[Call]) -> bool:
    """Whether some order of the calls, which respects who ended before whom, gives all these answers."""
    return _search(frozenset(range(len(history))), State(), history, set())


def _search(left: frozenset[int], state: State, history: list[Call], seen: set[tuple[frozenset[int], State]]) -> bool:
    if all(history[each].end == float("inf") for each in left):
        return True  # nobody heard an answer to these, so they need not have happened
    if (left, state) in seen:
        return False
    seen.add((left, state))
    horizon = min(history[each].end for each in left)
    for each in left:
        call = history[each]
        if call.begin <= horizon:
            after = step(state, call)
            if after is not None and _search(left - {each}, after, history, seen):
                return True
    return False


def step(state: State, call: Call) -> State | None:
    """The state after the call, or None if it cannot have had this answer in this state."""
    unheard = call.end == float("inf")
    after, answer = RULES[call.what](state, call.argument)
    return after if unheard or answer == call.answer else None


def _create(state: State, _: Any) -> tuple[State, Any]:
    return (State("pending"), True) if state.verdict is None else (state, False)


def _settle(state: State, value: str) -> tuple[State, Any]:
    if state.verdict == "pending":
        return State(value, state.starts), (True, value)
    return state, "promise_unknown" if state.verdict is None else (False, state.verdict)


def _start(state: State, _: Any) -> tuple[State, Any]:
    if state.verdict is None:
        return state, "promise_unknown"
    if state.verdict != "pending":
        return state, False
    return State("pending", state.starts + 1), state.starts == 0


def _get(state: State, _: Any) -> tuple[State, Any]:
    return state, state.verdict or "promise_unknown"


RULES = {"create": _create, "settle": _settle, "start": _start, "get": _get}
