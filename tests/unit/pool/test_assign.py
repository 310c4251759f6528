from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capsule_pool.assign import PATIENCE, Idle, Plan, State, assign
from capsule_pool.config import PoolConfig

CONFIG = PoolConfig(min_idle=0, max_sessions=100, max_starting=4, idle_ttl=60.0)


def idle(*numbers: int, since: float = 0.0, memory: int = 0) -> list[Idle]:
    return [Idle(number, since, since, memory) for number in numbers]


def plan(config: PoolConfig = CONFIG, **state: object) -> Plan:
    return assign(State(config, **{"now": 0.0, **state}))  # type: ignore[arg-type]  # each test names its own fields


def config(**values: object) -> PoolConfig:
    return dataclasses.replace(CONFIG, **values)  # type: ignore[arg-type]  # each test names its own fields


# What is done


def test_nothing_wanted_is_nothing_done() -> None:
    assert plan() == Plan((), 0, (), (), None, 0)


def test_the_first_waiter_gets_the_newest_member() -> None:
    assert plan(interactive=[7, 8], idle=idle(1, 2, 3)).assigned == ((7, 3), (8, 2))


def test_interactive_waiters_come_before_batch_waiters() -> None:
    assert plan(interactive=[9], batch=[1, 2], idle=idle(1, 2)).assigned == ((9, 2), (1, 1))


def test_every_fifth_member_is_for_a_waiting_batch_waiter() -> None:
    served = [waiter for waiter, _ in plan(interactive=range(1, 9), batch=[90, 91], idle=idle(*range(10))).assigned]
    assert served == [1, 2, 3, 4, 90, 5, 6, 7, 8, 91]


def test_a_batch_waiter_is_not_put_off_by_interactive_ones_that_arrive_one_by_one() -> None:
    streak, turns = 0, []
    for arrival in range(2 * PATIENCE + 2):
        answer = plan(interactive=[arrival], batch=[90], idle=idle(1), streak=streak)
        streak = answer.streak
        turns.append(answer.assigned[0][0] == 90)
    assert turns.index(True) == PATIENCE
    assert turns.count(True) == 2


def test_members_are_made_for_waiters_within_the_bound_of_those_that_start() -> None:
    assert plan(interactive=[1, 2], starting=1).to_start == 1
    assert plan(interactive=range(10)).to_start == 4
    assert plan(interactive=range(10), starting=4).to_start == 0


def test_members_in_use_and_being_closed_count_against_the_bound() -> None:
    assert plan(config(max_sessions=5), interactive=[1, 2, 3], others=3).to_start == 2
    assert plan(config(max_sessions=5), interactive=[1, 2, 3], others=5).to_start == 0
    assert plan(config(max_sessions=2), interactive=[1, 2, 3], idle=idle(1)).to_start == 1


def test_members_are_made_for_later_up_to_min_idle() -> None:
    assert plan(config(min_idle=3), idle=idle(1)).to_start == 2
    assert plan(config(min_idle=3), idle=idle(1), interactive=[1]).to_start == 3
    assert plan(config(min_idle=3), idle=idle(1), may_refill=False).to_start == 0
    assert plan(config(min_idle=3), interactive=[1], may_refill=False).to_start == 1


def test_surplus_members_expire_and_the_others_stay() -> None:
    answer = plan(config(min_idle=1), idle=[*idle(1, 2), *idle(3, since=30.0)], now=60.0)
    assert answer.to_close == ((1, "idle"), (2, "idle"))
    assert answer.again is None
    assert plan(config(min_idle=1), idle=[*idle(1), *idle(2, since=30.0)], now=50.0).again == 60.0


def test_a_member_past_its_age_is_replaced_and_goes_to_nobody() -> None:
    answer = plan(config(min_idle=1, max_age=10.0), idle=idle(1), interactive=[5], now=10.0)
    assert (answer.assigned, answer.to_close, answer.to_start) == ((), ((1, "age"),), 2)
    assert plan(config(min_idle=1, max_age=10.0), idle=idle(1), now=9.0).again == 10.0


def test_idle_members_hold_no_more_than_their_budget() -> None:
    budget = config(min_idle=4, idle_bytes=250)
    answer = plan(budget, idle=idle(1, 2, 3, memory=100), size=100)
    assert (answer.to_close, answer.to_start) == (((1, "memory"),), 0)
    assert plan(budget, idle=idle(1, memory=100), size=100).to_start == 1


def test_a_member_over_the_whole_budget_serves_a_waiter_but_is_not_made_for_later() -> None:
    budget = config(min_idle=4, idle_bytes=50)
    assert plan(budget, idle=idle(1, memory=100), interactive=[5], size=100).assigned == ((5, 1),)
    assert plan(budget, size=100).to_start == 0
    assert plan(budget, interactive=[5], size=100).to_start == 1


def test_while_the_breaker_is_open_only_those_are_refused_who_wait_for_nothing() -> None:
    answer = plan(interactive=[1, 2, 3], batch=[9], idle=idle(1), starting=1, may_start=False, may_refill=False)
    assert (answer.assigned, answer.to_refuse, answer.to_start) == (((1, 1),), (3, 9), 0)


def test_one_waiter_waits_for_the_probe_and_the_others_are_refused() -> None:
    answer = plan(interactive=[1, 2, 3], probe=True)
    assert (answer.to_start, answer.to_refuse) == (1, (2, 3))


# What holds in every state


@st.composite
def states(draw: st.DrawFn) -> State:
    count = st.integers(0, 8)
    now = 100.0
    times = sorted(draw(st.lists(st.floats(0, now), max_size=8)))
    members = [
        Idle(number, draw(st.floats(0, since)), since, draw(st.integers(0, 100))) for number, since in enumerate(times)
    ]
    numbers = draw(st.lists(st.booleans(), max_size=12))
    limits = PoolConfig(
        min_idle=draw(count),
        max_sessions=draw(st.integers(1, 20)),
        max_starting=draw(st.integers(1, 6)),
        idle_ttl=draw(st.floats(0.1, 200)),
        max_age=draw(st.none() | st.floats(0.1, 200)),
        idle_bytes=draw(st.none() | st.integers(0, 400)),
    )
    return State(
        config=limits,
        now=now,
        interactive=[number for number, first in enumerate(numbers) if first],
        batch=[number for number, first in enumerate(numbers) if not first],
        idle=members,
        starting=draw(count),
        others=draw(count),
        streak=draw(st.integers(0, PATIENCE)),
        may_start=draw(st.booleans()),
        may_refill=draw(st.booleans()),
        probe=draw(st.booleans()),
        size=draw(st.integers(0, 100)),
    )


@given(states())
def test_every_waiter_and_every_member_has_one_fate(state: State) -> None:
    answer = assign(state)
    waiters = [waiter for waiter, _ in answer.assigned] + list(answer.to_refuse)
    members = [member for _, member in answer.assigned] + [member for member, _ in answer.to_close]
    assert len(set(waiters)) == len(waiters)
    assert len(set(members)) == len(members)
    assert set(waiters) <= {*state.interactive, *state.batch}
    assert set(members) <= {member.number for member in state.idle}


@given(states())
def test_each_class_is_served_in_order_of_arrival(state: State) -> None:
    served = [waiter for waiter, _ in assign(state).assigned]
    for queue in (state.interactive, state.batch):
        mine = [waiter for waiter in served if waiter in queue]
        assert mine == list(queue)[: len(mine)]


@given(states())
def test_nobody_waits_beside_an_idle_member(state: State) -> None:
    answer = assign(state)
    kept = len(state.idle) - len(answer.assigned) - len(answer.to_close)
    waiting = len(state.interactive) + len(state.batch) - len(answer.assigned) - len(answer.to_refuse)
    assert kept == 0 or waiting == 0


@given(states())
def test_no_bound_is_passed(state: State) -> None:
    answer = assign(state)
    if answer.to_start:
        assert state.may_start or state.may_refill
        assert answer.to_start + state.starting <= state.config.max_starting
        assert answer.to_start + state.starting + state.others + len(state.idle) <= state.config.max_sessions
        assert answer.to_start == 1 or not state.probe


@given(states())
def test_no_more_are_made_than_somebody_could_use(state: State) -> None:
    answer = assign(state)
    waiting = len(state.interactive) + len(state.batch) - len(answer.assigned)
    assert answer.to_start <= max(0, waiting + state.config.min_idle - state.starting)


@given(states())
def test_a_plan_that_was_carried_out_leaves_nothing_to_close_or_to_assign(state: State) -> None:
    """Otherwise the pool would have to ask again, and would not know when."""
    answer = assign(state)
    gone = {member for _, member in answer.assigned} | {member for member, _ in answer.to_close}
    answered = {waiter for waiter, _ in answer.assigned} | set(answer.to_refuse)
    after = dataclasses.replace(
        state,
        interactive=[waiter for waiter in state.interactive if waiter not in answered],
        batch=[waiter for waiter in state.batch if waiter not in answered],
        idle=[member for member in state.idle if member.number not in gone],
        others=state.others + len(gone),
        starting=state.starting + answer.to_start,
        streak=answer.streak,
        probe=False,
        may_start=state.may_start and not state.probe,
        may_refill=state.may_refill and not state.probe,
    )
    again = assign(after)
    assert (again.assigned, again.to_close, again.to_refuse, again.to_start) == ((), (), (), 0)
    assert again.again is None or again.again > state.now


@pytest.mark.parametrize("size", [0, 1, 50])
def test_waiters_that_cannot_be_served_yet_are_kept(size: int) -> None:
    answer = plan(config(max_sessions=1), interactive=range(size), others=1)
    assert answer == Plan((), 0, (), (), None, 0)
