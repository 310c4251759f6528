"""The fault budget: warn, slow down, keep away, try one, and let in again."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from capsule.broker.budget import TRANSITIONS, Budget, Event, State, Step
from capsule.broker.packs import BudgetSettings
from capsule_protocol.errors import CapabilityDenied

DEFAULT = BudgetSettings()


def faulty(count: int, now: float = 0.0, **changed: Any) -> Budget:
    budget = Budget(DEFAULT.model_copy(update=changed))
    for _ in range(count):
        budget.fault(now)
    return budget


def denied(budget: Budget, now: float) -> CapabilityDenied:
    with pytest.raises(CapabilityDenied) as caught:
        budget.check(now)
    assert caught.value.code == "capability_isolated"
    return caught.value


def test_the_thresholds_are_sixty_eighty_and_a_hundred_of_a_hundred_faults_in_a_minute() -> None:
    budget = Budget(DEFAULT)
    steps = [budget.fault(0.0) for _ in range(100)]
    assert {number: step for number, step in enumerate(steps, 1) if step} == {
        60: Step("calm", "warned", 60, 60.0),
        80: Step("warned", "throttled", 80, 80.0),
        100: Step("throttled", "isolated", 100, 100.0, DEFAULT.pause),
    }


def test_only_one_who_is_throttled_waits() -> None:
    assert [faulty(count).check(0.0) for count in (0, 59, 60, 79)] == [0.0] * 4
    assert [faulty(count).check(0.0) for count in (80, 99)] == [DEFAULT.delay] * 2


def test_faults_count_within_the_window_only() -> None:
    budget = faulty(99)
    assert budget.check(59.9) == DEFAULT.delay
    assert budget.check(60.0) == 0.0
    assert budget.state == "calm"
    assert budget.fault(60.0) is None


def test_one_who_is_isolated_is_told_for_how_long() -> None:
    error = denied(faulty(100), 10.0)
    assert error.details == {"state": "isolated", "faults": 100, "retry_after": DEFAULT.pause - 10.0}
    assert error.hint == "Wait 20.0 s, then try one."
    assert error.retryable


def test_isolation_adds_no_faults() -> None:
    """Neither refusals nor calls that were under way keep it up."""
    budget = faulty(100)
    for now in range(int(DEFAULT.pause)):
        denied(budget, float(now))
        assert budget.fault(float(now)) is None
        assert budget.success(float(now)) is None
    assert budget.check(DEFAULT.pause) == 0.0
    assert budget.success(DEFAULT.pause) == Step("probing", "calm", 0, 0.0)
    assert budget.check(DEFAULT.pause) == 0.0


def test_one_call_is_tried_and_others_wait_for_what_becomes_of_it() -> None:
    budget = faulty(100)
    assert budget.check(30.0) == 0.0
    assert "one is being tried" in denied(budget, 30.1).message
    assert budget.success(31.0) is not None
    assert [budget.check(31.0) for _ in range(3)] == [0.0] * 3


def test_what_becomes_of_calls_that_were_under_way_before_says_nothing_of_the_one_that_is_tried() -> None:
    budget = faulty(100)
    assert budget.check(30.0) == 0.0
    assert budget.success(31.0, probe=False) is None
    assert budget.fault(32.0, probe=False) is None
    assert denied(budget, 33.0).details["retry_after"] == DEFAULT.pause - 3.0
    assert budget.success(34.0, probe=True) == Step("probing", "calm", 0, 0.0)


def test_a_probe_that_fails_doubles_the_pause_up_to_its_bound() -> None:
    budget, now, pauses = faulty(100, longest_pause=100.0), 0.0, []
    for _ in range(4):
        now += denied(budget, now).details["retry_after"]
        assert budget.check(now) == 0.0
        step = budget.fault(now)
        assert step is not None
        pauses.append(step.pause)
    assert pauses == [60.0, 100.0, 100.0, 100.0]
    now += 100.0
    budget.check(now)
    budget.success(now)
    for _ in range(100):
        budget.fault(now)
    assert denied(budget, now).details["retry_after"] == DEFAULT.pause


def test_a_probe_of_which_nothing_is_heard_is_followed_by_another() -> None:
    budget = faulty(100)
    assert budget.check(30.0) == 0.0
    denied(budget, 59.9)
    assert budget.check(60.0) == 0.0
    denied(budget, 60.1)


def test_all_steps_are_told_also_those_of_time() -> None:
    told: list[Step] = []
    budget = Budget(DEFAULT, told.append)
    for _ in range(70):
        budget.fault(0.0)
    budget.check(61.0)
    for _ in range(100):
        budget.fault(61.0)
    budget.check(100.0)
    budget.success(100.0)
    assert [step.state for step in told] == ["warned", "calm", "warned", "throttled", "isolated", "probing", "calm"]
    assert [step.why for step in told[-3:]] == [
        "100 calls failed within the window, 100 % of what may",
        "the pause is over: one call is tried",
        "the call that was tried did not fail",
    ]


def test_other_settings_hold_from_then_on() -> None:
    budget = faulty(50)
    budget.configure(DEFAULT.model_copy(update={"faults": 50}))
    assert budget.success(1.0) == Step("calm", "isolated", 50, 100.0, DEFAULT.pause)


def test_every_state_says_what_it_does_at_its_events() -> None:
    assert set(TRANSITIONS) == set(get_args(State))
    assert {event for found in TRANSITIONS.values() for event in found} == set(get_args(Event))


class Usage(RuleBasedStateMachine):
    """Whatever happens: if all calls fail no more get through in a pause than faults + 1, and it never hangs."""

    def __init__(self) -> None:
        super().__init__()
        self.settings = BudgetSettings(faults=5, window=10, pause=3, longest_pause=20)
        self.told: list[Step] = []
        self.budget = Budget(self.settings, self.told.append)
        self.now = 0.0
        self.failed: list[float] = []

    @rule(seconds=st.sampled_from([0.0, 0.1, 1.0, 5.0, 25.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(fails=st.booleans())
    def call(self, fails: bool) -> None:
        with suppress(CapabilityDenied):
            self.budget.check(self.now)
            self.called(fails=fails)

    def called(self, *, fails: bool) -> None:
        if fails:
            self.budget.fault(self.now)
            self.failed.append(self.now)
        else:
            self.budget.success(self.now)
            if self.told and self.told[-1].before == "probing":
                self.failed.clear()

    @rule()
    def it_can_be_called_again_after_the_longest_pause(self) -> None:
        self.now += self.settings.longest_pause
        self.budget.check(self.now)
        self.budget.success(self.now)
        self.failed.clear()

    @invariant()
    def failures_are_bounded(self) -> None:
        recent = [at for at in self.failed if at > self.now - self.settings.pause]
        assert len(recent) <= self.settings.faults + 1

    @invariant()
    def steps_follow_each_other(self) -> None:
        for one, next_ in zip(self.told, self.told[1:], strict=False):
            assert one.state == next_.before != next_.state


TestUsage = Usage.TestCase
TestUsage.settings = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
