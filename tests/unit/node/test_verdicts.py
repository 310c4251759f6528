"""Each way in which an execution can end has its verdict, and the verdict says which way it was."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator

import pytest
from msgpack import packb

from capsule.client.results import Result, execution_error
from capsule.events import Finished
from capsule.node.box import ExitStatus
from capsule.node.execution import ExecuteRequest, Execution
from capsule.node.ladder import Ladder, Reason
from capsule.node.verdicts import Loss, LossCause, as_lost, lost, of_error, of_loss, unsent
from capsule.wire import pack_event, unpack_event
from capsule_protocol.messages.execution import Error
from tests.unit.node.hosts import Host

KILLED = ExitStatus(signal=signal.SIGKILL)


@pytest.fixture
def execution() -> Iterator[Execution]:
    loop = asyncio.new_event_loop()
    yield Execution("x_1", Host(), ExecuteRequest("1", timeout=2.0), loop)
    loop.close()


def climb(execution: Execution, reason: Reason, *, killed: bool = False) -> None:
    """The ladder as it is after it began, without its timers."""
    ladder = Ladder(execution._loop, execution, reason, 1.0, lambda: None, lambda: None)
    ladder.killed = killed
    execution.ladder = ladder


def interrupted(code: str = "execution_interrupted") -> Error:
    return Error(verdict="interrupted", name="KeyboardInterrupt", code=code, traceback=["line 1"])


def test_what_the_code_raised_is_passed_on(execution: Execution) -> None:
    error = Error(verdict="error", name="ValueError", message="x", code="execution_error", traceback=["a", "b"])
    verdict, info = of_error(error, execution)
    assert (verdict, info.name, info.message, info.traceback) == ("error", "ValueError", "x", ["a", "b"])


@pytest.mark.parametrize(
    ("reason", "verdict", "code"),
    [
        ("interrupt", "interrupted", "execution_interrupted"),
        ("timeout", "timeout", "execution_timeout"),
        ("output_limit", "error", "output_limit_exceeded"),
    ],
)
def test_an_interrupt_is_told_by_its_reason(execution: Execution, reason: Reason, verdict: str, code: str) -> None:
    climb(execution, reason)
    ruling = of_error(interrupted(), execution)
    assert (ruling.verdict, ruling.error.code, ruling.error.traceback) == (verdict, code, ["line 1"])


def test_an_error_during_a_timeout_stays_an_error(execution: Execution) -> None:
    climb(execution, "timeout")
    assert of_error(Error(verdict="error", name="ValueError", code="execution_error"), execution).verdict == "error"


def test_a_cancellation_is_no_timeout(execution: Execution) -> None:
    climb(execution, "timeout")
    assert of_error(interrupted("execution_cancelled"), execution).error.code == "execution_cancelled"


@pytest.mark.parametrize(
    ("status", "verdict", "code", "text"),
    [
        (ExitStatus(code=3), "crashed", "execution_crashed", "exited with code 3"),
        (ExitStatus(signal=signal.SIGSEGV), "crashed", "execution_crashed", "SIGSEGV (11)"),
        (ExitStatus(signal=signal.SIGRTMIN + 1), "crashed", "execution_crashed", "SIGRTMIN+1"),
        (ExitStatus(), "crashed", "execution_crashed", "box"),
        (ExitStatus(signal=signal.SIGKILL, exceeded="memory"), "oom", "execution_oom", "memory"),
        (ExitStatus(signal=signal.SIGKILL, exceeded="processes"), "killed", "process_limit_exceeded", "processes"),
    ],
)
def test_the_end_of_a_worker_is_told_as_it_was(
    execution: Execution, status: ExitStatus, verdict: str, code: str, text: str
) -> None:
    ruling = of_loss(Loss("exit", status), execution, started=True)
    assert (ruling.verdict, ruling.error.code) == (verdict, code)
    assert text in ruling.error.message


@pytest.mark.parametrize("started", [True, False])
@pytest.mark.parametrize(
    ("reason", "verdict", "code"),
    [
        ("interrupt", "killed", "execution_killed"),
        ("timeout", "timeout", "execution_timeout"),
        ("output_limit", "error", "output_limit_exceeded"),
    ],
)
def test_the_last_rung_of_the_ladder_is_told_by_its_reason(
    execution: Execution, reason: Reason, verdict: str, code: str, started: bool
) -> None:
    """Also when what an earlier cell left behind kept the execution from beginning."""
    climb(execution, reason, killed=True)
    ruling = of_loss(Loss("exit", KILLED), execution, started=started)
    assert (ruling.verdict, ruling.error.code) == (verdict, code)


def test_a_crash_during_the_ladder_is_a_crash(execution: Execution) -> None:
    climb(execution, "timeout")
    ruling = of_loss(Loss("exit", ExitStatus(signal=signal.SIGSEGV)), execution, started=True)
    assert ruling.verdict == "crashed"


def test_a_violation_is_worker_lost_and_says_what_it_was(execution: Execution) -> None:
    ruling = of_loss(Loss("violation", KILLED, "protocol violation: x"), execution, started=True)
    assert ruling.verdict == "worker_lost"
    assert "protocol violation: x" in ruling.error.message


def test_a_link_that_broke_because_the_worker_was_over_a_limit_is_no_violation(execution: Execution) -> None:
    loss = Loss("violation", ExitStatus(signal=signal.SIGKILL, exceeded="processes"), "it broke its link")
    assert of_loss(loss, execution, started=True).error.code == "process_limit_exceeded"
    assert of_loss(loss, execution, started=False).verdict == "worker_lost"


@pytest.mark.parametrize("cause", ["restart", "close"])
def test_on_purpose_the_running_one_is_killed_and_the_others_are_cancelled(execution: Execution, cause: str) -> None:
    loss = Loss(cause, KILLED)  # type: ignore[arg-type]
    assert of_loss(loss, execution, started=True).verdict == "killed"
    for ruling in (of_loss(loss, execution, started=False), unsent(loss)):
        assert (ruling.verdict, ruling.error.code) == ("interrupted", "execution_cancelled")


@pytest.mark.parametrize("cause", ["restart", "close"])
def test_nobody_is_told_to_restart_what_was_restarted_or_closed(execution: Execution, cause: str) -> None:
    loss = Loss(cause, KILLED)  # type: ignore[arg-type]
    hint = of_loss(loss, execution, started=True).error.hint
    assert hint
    assert "restart" not in hint


def test_those_that_had_not_begun_when_the_worker_crashed_are_lost(execution: Execution) -> None:
    loss = Loss("exit", ExitStatus(code=1))
    for ruling in (of_loss(loss, execution, started=False), unsent(loss)):
        assert (ruling.verdict, ruling.error.code) == ("worker_lost", "worker_lost")


@pytest.mark.parametrize("cause", ["exit", "violation", "drain", "restart", "close"])
def test_only_what_never_began_may_be_asked_for_again(execution: Execution, cause: LossCause) -> None:
    loss = Loss(cause, KILLED)
    execution.output(0, b"\xc3")  # half a character is told as soon as it is known that nothing follows
    begun = as_lost(of_loss(loss, execution, started=True), loss, execution, started=True).error
    assert begun.details.items() >= {"started": True, "last_seq": 2, "effects": "unknown"}.items()
    assert begun.details["reason"]
    waiting = as_lost(unsent(loss), loss, execution, started=False)
    assert waiting.error.details.items() >= {"started": False, "last_seq": 2, "effects": "none"}.items()
    errors = [execution_error(Result("worker_lost", error=error)) for error in (begun, waiting.error)]
    assert [error.retryable for error in errors] == [False, True]
    execution.finish("crashed", error=begun)
    assert execution.verdict is not None
    assert execution.verdict.sequence == begun.details["last_seq"] + 1
    told = unpack_event(pack_event(execution.verdict), "x_1", 3)
    assert told == execution.verdict


@pytest.mark.parametrize("reason", ["timeout", "interrupt", "output_limit"])
def test_what_was_killed_before_it_began_may_be_asked_for_again(execution: Execution, reason: Reason) -> None:
    climb(execution, reason, killed=True)
    loss = Loss("exit", KILLED)
    errors = [
        as_lost(of_loss(loss, execution, started=begun), loss, execution, started=begun).error
        for begun in (True, False)
    ]
    assert [error.retryable for error in errors] == [False, True]


def test_what_cannot_be_run_in_its_epoch_any_more_is_not_to_be_asked_for_again() -> None:
    assert not lost("epoch_mismatch", "", "", started=False, last=0, code="epoch_mismatch").error.retryable


def test_what_the_ladder_killed_was_lost_for_its_reason(execution: Execution) -> None:
    climb(execution, "timeout", killed=True)
    loss = Loss("exit", KILLED)
    ruling = as_lost(of_loss(loss, execution, started=True), loss, execution, started=True)
    assert ruling.error.details["reason"] == "timeout"
    assert ruling.error.details["signal"] == signal.SIGKILL


def test_a_log_that_does_not_say_what_may_be_asked_for_again_has_what_the_table_says() -> None:
    for code, expected in ("execution_cancelled", True), ("worker_lost", False), ("of a later version", False):
        logged = packb(("error", {"verdict": "error", "code": code}, ()))
        event = unpack_event(logged, "x_1", 1)
        assert isinstance(event, Finished)
        assert event.error is not None
        assert event.error.retryable is expected
