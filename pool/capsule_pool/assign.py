"""The one place that decides: who gets which member, how many are made, which are closed, who cannot be served.

The rules, in their order:

1. An idle member that is older than `max_age` is closed.
2. Waiters get idle members, the newest first: those that are left over grow old and expire. Interactive waiters come
   before batch waiters, each class in order of arrival. After `PATIENCE` interactive ones in a row past a waiting batch
   waiter, the oldest batch waiter has its turn.
3. Idle members are closed, the oldest first, which together hold more memory than `idle_bytes`, or which are beyond
   `min_idle` and were wanted by nobody for `idle_ttl`.
4. Members are made for the waiters that are left, and then for `min_idle`; within `max_starting`, `max_sessions` and
   what the breaker allows.
5. If the breaker allows none, waiters for whom no member is on its way are refused: it would be a wait for nothing.

Nothing here has a clock, waits, or changes what it is given.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from capsule_pool.config import PoolConfig

PATIENCE = 4
"""Interactive waiters in a row that a batch waiter lets past."""


class Idle(NamedTuple):
    """An idle member: its number, when it was made, since when it is idle, the memory that it holds."""

    number: int
    made: float
    since: float
    memory: int = 0


@dataclass(frozen=True, slots=True)
class State:
    """All that the decision depends on. Waiters are numbers in order of arrival; idle members, the oldest first."""

    config: PoolConfig
    now: float
    interactive: Sequence[int] = ()
    batch: Sequence[int] = ()
    idle: Sequence[Idle] = ()
    starting: int = 0
    others: int = 0  # members in use or being closed
    streak: int = 0  # interactive waiters served in a row past a batch waiter
    may_start: bool = True  # the breaker lets members be made for waiters
    may_refill: bool = True  # and, in its own time, for later
    probe: bool = False  # but one only
    size: int = 0  # the memory that a new member is going to hold, as far as is known


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done: pairs (waiter, member), a number of members to make, members to close and why, waiters to
    refuse; when to ask again if nothing else happens; and the new streak.
    """

    assigned: tuple[tuple[int, int], ...]
    to_start: int
    to_close: tuple[tuple[int, str], ...]
    to_refuse: tuple[int, ...]
    again: float | None
    streak: int


def assign(state: State) -> Plan:
    """The plan for a state."""
    closed, kept = _aged(state)
    order, streak = _turns(state, len(kept))
    assigned = tuple((waiter, member.number) for waiter, member in zip(order, reversed(kept), strict=False))
    kept = kept[: len(kept) - len(assigned)]
    waiting = len(state.interactive) + len(state.batch) - len(assigned)
    expired, kept = _expired(state, kept)
    closed += expired
    to_start = _to_start(state, waiting, kept, len(closed) + len(assigned))
    refused: tuple[int, ...] = ()
    if not state.may_start or state.probe:
        refused = _refused(state, {waiter for waiter, _ in assigned}, to_start)
    return Plan(assigned, to_start, closed, refused, _again(state, kept), streak)


def _aged(state: State) -> tuple[tuple[tuple[int, str], ...], list[Idle]]:
    """Those that nobody may get any more; and the others."""
    oldest = state.now - (math.inf if state.config.max_age is None else state.config.max_age)
    closed = tuple((member.number, "age") for member in state.idle if member.made <= oldest)
    return closed, [member for member in state.idle if member.made > oldest]


def _turns(state: State, places: int) -> tuple[list[int], int]:
    """The next waiters to be served, and the streak after them."""
    interactive, batch = iter(state.interactive), iter(state.batch)
    left, behind, streak = len(state.interactive), len(state.batch), state.streak
    order: list[int] = []
    while len(order) < places and left + behind:
        if behind and (not left or streak >= PATIENCE):
            order.append(next(batch))
            behind, streak = behind - 1, 0
        else:
            order.append(next(interactive))
            left, streak = left - 1, streak + 1 if behind else 0
    return order, streak


def _expired(state: State, idle: list[Idle]) -> tuple[tuple[tuple[int, str], ...], list[Idle]]:
    """Those of which there are too many; and the others."""
    config = state.config
    held = sum(member.memory for member in idle)
    closed: list[tuple[int, str]] = []
    for place, member in enumerate(idle):
        if config.idle_bytes is not None and held > config.idle_bytes:
            closed.append((member.number, "memory"))
        elif len(idle) - place > config.min_idle and state.now - member.since >= config.idle_ttl:
            closed.append((member.number, "idle"))
        else:
            break
        held -= member.memory
    return tuple(closed), idle[len(closed) :]


def _to_start(state: State, waiting: int, idle: list[Idle], left: int) -> int:
    """How many to make; `left` members are idle no more, but still there."""
    config = state.config
    room = min(
        config.max_starting - state.starting,
        config.max_sessions - state.starting - state.others - len(idle) - left,
        1 if state.probe else config.max_sessions,
    )
    wanted = waiting - state.starting if state.may_start else 0
    if state.may_refill:
        later = config.min_idle - len(idle)
        if config.idle_bytes is not None and state.size:
            held = sum(member.memory for member in idle)
            later = min(later, max(0, config.idle_bytes - held) // state.size)
        wanted = max(wanted, waiting + later - state.starting)
    return max(0, min(room, wanted))


def _refused(state: State, served: set[int], to_start: int) -> tuple[int, ...]:
    """The last ones: those before them get the members that are being made."""
    left = [waiter for waiter in (*state.interactive, *state.batch) if waiter not in served]
    return tuple(left[state.starting + to_start :])


def _again(state: State, idle: list[Idle]) -> float | None:
    """When the next idle member is too old."""
    config = state.config
    times = [idle[0].since + config.idle_ttl] if len(idle) > config.min_idle else []
    if config.max_age is not None and idle:
        times.append(min(member.made for member in idle) + config.max_age)
    return min(times, default=None)
