from __future__ import annotations

import copy
import pickle
import re

import pytest

from capsule_protocol import errors, ids
from capsule_protocol.errors import CODES, ArgumentError, CapsuleError, ExecutionError, SessionError, WorkerLost


def test_an_error_says_message_code_and_hint() -> None:
    error = SessionError("session_dead", "session s_1 is dead")
    assert str(error) == "session s_1 is dead (session_dead). Call `restart()`."
    assert (error.code, error.retryable, error.details) == ("session_dead", False, {})
    assert str(CapsuleError("worker_lost", "gone", hint="")) == "gone (worker_lost)"


@pytest.mark.parametrize("code", CODES)
def test_an_error_survives_the_wire_and_pickle(code: str) -> None:
    error = CapsuleError.from_dict(CapsuleError(code, "why", hint="do", retryable=True, details={"a": 1}).as_dict())
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error), CapsuleError.from_dict(error.as_dict())):
        assert type(other) is type(error)
        assert (
            other.as_dict()
            == error.as_dict()
            == {
                "code": code,
                "message": "why",
                "hint": "do",
                "retryable": True,
                "details": {"a": 1},
            }
        )


def test_what_may_have_had_an_effect_is_not_announced_as_retryable() -> None:
    """Each of these says of itself that nothing was done, or is about something that has no effect."""
    refusals = {
        "pool_unavailable pool_timeout pool_exhausted session_restarting queue_full too_many_sessions too_many_clients",
        "descriptors_exhausted too_many_watchers too_many_requests too_many_transfers quota_exceeded node_unreachable",
        "capability_throttled capability_busy capability_isolated audit_unavailable provider_unavailable",
        "worker_start_failed worker_start_timeout execution_cancelled checksum_mismatch approval_expired",
        "store_unavailable",  # with the same key
    }
    assert {code for code, info in CODES.items() if info.retryable} == set(" ".join(refusals).split())


def test_a_code_comes_back_in_the_class_that_says_who_must_act() -> None:
    def kind(code: str) -> type[CapsuleError]:
        return type(CapsuleError.from_dict({"code": code}))

    assert kind("unknown_option") is ArgumentError
    assert kind("node_closed") is SessionError
    assert kind("worker_start_timeout") is WorkerLost
    assert kind("environment_unknown") is errors.EnvironmentFailed
    assert kind("execution_oom") is ExecutionError
    assert kind("execution_unknown") is SessionError
    assert kind("of_a_later_version") is CapsuleError


def test_an_argument_error_names_the_argument_and_what_is_allowed() -> None:
    error = ArgumentError("timeout", "must not be negative", allowed="a number of seconds")
    assert str(error) == "timeout: must not be negative; allowed: a number of seconds (invalid_argument)"
    assert isinstance(error, ValueError)
    assert error.argument == "timeout"
    assert error.details == {"argument": "timeout", "allowed": "a number of seconds"}
    assert ArgumentError("colour", "no such option", code="unknown_option").code == "unknown_option"


def test_codes_are_snake_case_and_say_what_they_mean() -> None:
    for code, info in CODES.items():
        assert re.fullmatch(r"[a-z]+(_[a-z]+)*", code)
        assert info.meaning
        assert not info.hint or info.hint.endswith(".")


def test_ids_are_distinct_and_safe() -> None:
    made = {ids.new_id(ids.EXECUTION) for _ in range(10_000)}
    assert len(made) == 10_000
    assert all(re.fullmatch(r"x_[A-Za-z0-9_-]{16}", one) for one in made)
