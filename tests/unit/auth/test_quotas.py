"""What one principal may use at once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capsule.node.auth.quotas import Bucket, Usage, check_execute, check_open
from capsule.settings.service import QuotaConfig
from capsule_protocol.errors import SessionError

NONE = QuotaConfig()


def refusal(call: object) -> dict[str, object]:
    assert callable(call)
    with pytest.raises(SessionError) as caught:
        call()
    assert caught.value.code == "quota_exceeded"
    assert str(caught.value.details["limit"]) in caught.value.message
    return caught.value.details


def test_without_limits_everything_is_let_through() -> None:
    much = Usage(10**6, 10**6, 10**6, 10**15)
    check_open(NONE, much)
    for busy in (True, False):
        check_execute(NONE, much, busy=busy)


def test_sessions_up_to_the_limit() -> None:
    quota = QuotaConfig(sessions=2)
    check_open(quota, Usage(sessions=1))
    assert refusal(lambda: check_open(quota, Usage(sessions=2))) == {"limit": "sessions", "used": 2, "allowed": 2}


def test_an_idle_session_counts_as_running_and_a_busy_one_as_waiting() -> None:
    quota = QuotaConfig(executions=1, queued=1)
    check_execute(quota, Usage(), busy=False)
    check_execute(quota, Usage(executions=1), busy=True)
    told = refusal(lambda: check_execute(quota, Usage(executions=1), busy=False))
    assert told == {"limit": "executions", "used": 1, "allowed": 1}
    told = refusal(lambda: check_execute(quota, Usage(executions=1, queued=1), busy=True))
    assert told == {"limit": "queued", "used": 1, "allowed": 1}


def test_nothing_may_wait_where_the_limit_is_zero() -> None:
    refusal(lambda: check_execute(QuotaConfig(queued=0), Usage(executions=1), busy=True))


def test_memory_stops_new_sessions_and_new_code() -> None:
    quota = QuotaConfig(memory_bytes=2**20)
    check_open(quota, Usage(memory=2**20 - 1))
    full = Usage(memory=2**20)
    assert refusal(lambda: check_open(quota, full))["limit"] == "memory_bytes"
    assert refusal(lambda: check_execute(quota, full, busy=False))["limit"] == "memory_bytes"


def test_a_large_message_passes_and_what_follows_waits_for_it() -> None:
    bucket = Bucket(1000, now=0.0)
    bucket.check(0.0)
    bucket.spend(5000, 0.0)
    told = refusal(lambda: bucket.check(1.0))
    assert told["limit"] == "bytes_per_second"
    assert told["retry_after"] == pytest.approx(3.001)
    bucket.check(1.0 + 3.01)


def test_rest_is_not_saved_up_beyond_the_burst() -> None:
    bucket = Bucket(1000, now=0.0)
    bucket.spend(1000, 1_000_000.0)
    refusal(lambda: bucket.check(1_000_000.0))


def test_a_clock_that_goes_back_gives_nothing() -> None:
    bucket = Bucket(1000, now=100.0)
    bucket.spend(1000, 100.0)
    refusal(lambda: bucket.check(50.0))
    refusal(lambda: bucket.check(50.0005))


@given(st.lists(st.tuples(st.integers(0, 2000), st.floats(0, 2)), max_size=50))
def test_over_any_time_no_more_is_let_through_than_rate_and_burst_and_the_last_message(
    steps: list[tuple[int, float]],
) -> None:
    bucket, now, carried, largest = Bucket(1000, now=0.0), 0.0, 0, 0
    for size, pause in steps:
        now += pause
        try:
            bucket.check(now)
        except SessionError:
            continue
        bucket.spend(size, now)
        carried, largest = carried + size, max(largest, size)
        assert carried <= 1000 * (1 + now) + largest + 1
