from __future__ import annotations

import dataclasses
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capsule_pool.breaker import Breaker
from capsule_pool.config import BreakerConfig
from capsule_pool.states import BreakerState

CONFIG = BreakerConfig(failures=3, window=10.0, pause=1.0, longest_pause=8.0)
BOOM = RuntimeError("boom")

Step = Literal["fail", "succeed", "late failure", "come short"]


def breaker(draw: float = 1.0, config: BreakerConfig = CONFIG) -> Breaker:
    return Breaker(config, lambda: draw)


def attempt(breaker: Breaker, now: float, step: Step) -> None:
    if step == "late failure":
        breaker.failed(now, BOOM, probe=False)
        return
    probe = breaker.attempt(now)
    if step == "fail":
        breaker.failed(now, BOOM, probe=probe)
    elif step == "come short":
        breaker.failed(now, BOOM, probe=probe, counts=False)
    else:
        breaker.succeeded()


@pytest.mark.parametrize(
    ("steps", "state"),
    [
        ([], "closed"),
        ([(0, "fail"), (1, "fail")], "closed"),
        ([(0, "fail"), (1, "fail"), (2, "fail")], "open"),
        ([(0, "fail"), (5, "fail"), (11, "fail")], "closed"),
        ([(0, "fail"), (1, "fail"), (2, "succeed"), (3, "fail")], "closed"),
        ([(0, "fail"), (1, "fail"), (2, "fail"), (6, "succeed")], "closed"),
        ([(0, "fail"), (1, "fail"), (2, "fail"), (6, "fail")], "open"),
        ([(0, "fail"), (1, "fail"), (2, "fail"), (3, "late failure")], "open"),
        ([(0, "fail"), (1, "fail"), (2, "fail"), (20, "fail"), (30, "succeed"), (31, "fail"), (32, "fail")], "closed"),
    ],
)
def test_the_state_after(steps: list[tuple[float, Step]], state: BreakerState) -> None:
    one = breaker()
    for now, step in steps:
        attempt(one, now, step)
    assert one.state == state


def opened(draw: float = 1.0) -> Breaker:
    one = breaker(draw)
    for _ in range(CONFIG.failures):
        attempt(one, 0.0, "fail")
    return one


def test_an_open_breaker_lets_one_attempt_through_when_the_pause_is_over() -> None:
    one = opened()
    assert one.next_attempt == 4.0
    assert not one.may_start(3.9)
    assert not one.may_refill(3.9)
    assert one.may_start(4.0)
    assert one.may_refill(4.0)
    assert one.attempt(4.0)
    assert one.state == "half_open"
    assert not one.may_start(100.0)
    assert not one.may_refill(100.0)


def test_a_failure_from_before_it_opened_does_not_end_the_probe() -> None:
    one = opened()
    one.attempt(4.0)
    one.failed(4.5, BOOM, probe=False)
    assert one.state == "half_open"


def test_in_the_pause_of_a_closed_breaker_only_waiters_are_served() -> None:
    one = breaker()
    attempt(one, 0.0, "fail")
    assert one.may_start(0.5)
    assert not one.may_refill(0.5)
    assert one.may_refill(1.0)


def test_pauses_double_up_to_the_longest_and_begin_anew_after_a_success() -> None:
    one = breaker()
    pauses, now = [], 0.0
    for _ in range(6):
        attempt(one, now, "fail")
        pauses.append(one.next_attempt - now)
        now = one.next_attempt
    assert pauses == [1.0, 2.0, 4.0, 8.0, 8.0, 8.0]
    attempt(one, now, "succeed")
    attempt(one, now, "fail")
    assert one.next_attempt - now == 1.0


def test_what_does_not_count_opens_nothing_and_is_followed_by_a_pause_all_the_same() -> None:
    one = breaker()
    for now in range(20):
        attempt(one, float(now), "come short")
        assert one.state == "closed"
        assert one.may_start(float(now))
        assert not one.may_refill(now + 0.9)
    attempt(one, 20.0, "fail")
    attempt(one, 20.0, "come short")
    attempt(one, 20.0, "fail")
    assert (one.state, one.info(20.0).failures) == ("closed", 2)
    attempt(one, 20.0, "fail")
    assert one.state == "open"


def test_a_probe_that_does_not_count_leaves_the_breaker_as_it_is() -> None:
    one = opened()
    attempt(one, 4.0, "come short")
    assert one.info(4.0).state == "open"
    assert one.may_start(one.next_attempt)
    probe = one.attempt(one.next_attempt)
    one.succeeded()  # another attempt, from before it opened
    one.failed(20.0, BOOM, probe=probe, counts=False)
    assert one.info(20.0).state == "closed"


def test_a_long_life_of_failures_ends_in_no_overflow() -> None:
    assert breaker().longest(10**9) == CONFIG.longest_pause


def test_it_tells_its_state_and_its_cause() -> None:
    info = opened(0.5).info(1.0)
    assert dataclasses.asdict(info) == {
        "state": "open",
        "failures": 3,
        "next_attempt": 1.0,
        "cause": "RuntimeError: boom",
    }
    assert breaker().info(0.0).cause == ""


@given(
    st.lists(st.tuples(st.floats(0, 20), st.sampled_from(["fail", "succeed", "come short"]))),
    st.floats(0, 1, exclude_max=True),
)
def test_whatever_happens_attempts_are_bounded_and_there_is_always_a_next_one(
    steps: list[tuple[float, Step]], draw: float
) -> None:
    one, now = breaker(draw), 0.0
    for pause, step in steps:
        now += pause
        if one.may_start(now):
            attempt(one, now, step)
        assert one.state != "half_open"
        assert 0 <= one.next_attempt - now <= CONFIG.longest_pause or one.may_start(now)
        assert one.may_start(max(now, one.next_attempt))
        assert len(one._failures) <= CONFIG.failures


@given(st.floats(0, 1), st.integers(1, 20))
def test_a_pause_is_drawn_from_the_whole_range(draw: float, failures: int) -> None:
    one = breaker(draw)
    for _ in range(failures):
        one.failed(0.0, BOOM, probe=True)
    assert one.next_attempt == draw * one.longest(failures)
