"""Which verdict an execution gets: from the worker's own word, or from the way in which the worker ended."""

from __future__ import annotations

import signal
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypedDict

from capsule.events import ErrorInfo, Verdict
from capsule_protocol.codes import CODES

if TYPE_CHECKING:
    from capsule.node.box import ExitStatus
    from capsule.node.execution import Execution
    from capsule.node.ladder import Ladder
    from capsule_protocol.messages.execution import Error

UNREADABLE = "what was asked for cannot be read any more: its file is lost or damaged"
"""Of an execution whose request is not in the store any more as it was accepted."""

LossCause = Literal["exit", "violation", "restart", "close", "drain"]


@dataclass(frozen=True, slots=True)
class Loss:
    """The end of a worker: what brought it about, and how the process ended."""

    cause: LossCause
    status: ExitStatus
    message: str = ""


class Ruling(NamedTuple):
    """A verdict and its reason."""

    verdict: Verdict
    error: ErrorInfo


class Said(TypedDict, total=False):
    """What a worker's verdict says beside how it ended: fields of `Finished`."""

    text: str
    data: dict[str, Any]
    metadata: dict[str, Any]
    execution_count: int
    duration: float
    user_expressions: dict[str, Any]
    payload: list[dict[str, Any]]
    shown: bool


def of_error(message: Error, execution: Execution) -> Ruling:
    """What the worker said, unless the node knows better why the code was interrupted."""
    error = ErrorInfo(
        message.name,
        message.message,
        message.traceback,
        message.code,
        message.hint or hint_of(message.code),
        message.details,
    )
    verdict: Verdict = message.verdict or "error"
    ladder = execution.ladder
    if ladder is None or verdict != "interrupted" or message.code == "execution_cancelled":
        return Ruling(verdict, error)
    if ladder.reason == "timeout":
        text = f"the execution took longer than its time-out of {execution.request.timeout:g} s"
        timed_out = replace(error, name="TimeoutError", message=text, code="execution_timeout")
        return Ruling("timeout", replace(timed_out, hint=hint_of("execution_timeout")))
    if ladder.reason == "output_limit":
        return output_limit(execution, error.traceback)
    return Ruling(verdict, error)


def output_limit(execution: Execution, traceback: list[str]) -> Ruling:
    """The execution wrote more than its buffer holds, in the mode that makes this an error."""
    bound = execution.session.options.buffer_bytes
    text = f"the execution wrote more than buffer_bytes={bound} that nobody had read yet"
    return Ruling("error", _info("OutputLimitExceeded", text, "output_limit_exceeded", traceback=traceback))


def of_loss(loss: Loss, execution: Execution, *, started: bool) -> Ruling:
    """The verdict of an execution that was at the worker when that ended."""
    ladder = execution.ladder
    if loss.status.exceeded and loss.cause == "violation":
        # The box has killed it, and was slower to say so than the link was to break.
        loss = replace(loss, cause="exit")
    if loss.cause == "violation":
        return _lost(f"the worker was killed: {loss.message}")
    if loss.cause == "drain":
        return _undrained(loss) if started else _lost(f"the worker was killed: {loss.message}")
    if ladder is not None and ladder.killed:  # also if it had not begun: what an earlier cell left held it up
        return _by_ladder(ladder, execution)
    if not started:
        return cancelled(_WHY[loss.cause]) if loss.cause != "exit" else _lost("the worker ended before it began")
    if loss.cause in {"restart", "close"}:
        info = _info("killed", f"the worker was killed: {_WHY[loss.cause]}", "execution_killed")
        return Ruling("killed", replace(info, hint=_NEXT[loss.cause]))
    return _of_exit(loss.status)


def _undrained(loss: Loss) -> Ruling:
    """The code ended, but its output did not arrive whole: that is never a result."""
    return Ruling("error", _info("OutputDrainTimeout", loss.message, "output_drain_timeout"))


def as_lost(ruling: Ruling, loss: Loss, execution: Execution, *, started: bool) -> Ruling:
    """The ruling on an execution whose worker ended, with how much of the code may have run."""
    ladder = execution.ladder
    reason = ladder.reason if ladder is not None and ladder.killed else _REASONS[loss.cause]
    return ruling._replace(error=_with_extent(ruling.error, reason, started=started, last=execution.last()))


def lost(reason: str, message: str, hint: str, *, started: bool, last: int, code: str = "worker_lost") -> Ruling:
    """The verdict of an execution that nobody can run, or say any more what became of it.

    `started`: it may have begun; `last`: the number of the last event that was told.
    """
    info = ErrorInfo(code, message, [], code, hint)
    return Ruling("worker_lost", _with_extent(info, reason, started=started, last=last))


def _with_extent(info: ErrorInfo, reason: str, *, started: bool, last: int) -> ErrorInfo:
    """Only what certainly never began is safe to ask for again, unless it cannot succeed: its epoch is over."""
    extent = {"reason": reason, "started": started, "last_seq": last, "effects": "unknown" if started else "none"}
    retryable = not started and info.code != "epoch_mismatch"
    return replace(info, details={**info.details, **extent}, retryable=retryable)


def unsent(loss: Loss) -> Ruling:
    """The verdict of an execution that had not been sent when the worker ended."""
    if loss.cause in {"restart", "close"}:
        return cancelled(_WHY[loss.cause])
    return _lost("the worker ended before it began" + (f": {loss.message}" if loss.message else ""))


def cancelled(why: str) -> Ruling:
    """The verdict of an execution that never began, on purpose."""
    return Ruling("interrupted", _info("cancelled", f"the execution was cancelled: {why}", "execution_cancelled"))


def interrupt_ignored() -> Ruling:
    """The verdict of an execution of a subshell that does not react, and is not worth the session's state."""
    text = "the code does not react to an interrupt, and goes on: it waits, or computes, in C"
    return Ruling("error", _info("InterruptIgnored", text, "interrupt_ignored"))


def lost_with_node(last: int) -> Ruling:
    """The verdict of an execution whose own verdict a node had heard, and not kept, when it died."""
    message = "the execution ended, and its verdict was lost with the node that had heard it"
    return lost("verdict_lost", message, hint_of("worker_lost"), started=True, last=last)


def unreadable() -> Ruling:
    """The verdict of an execution that cannot be begun, for the store does not have any more what was asked for."""
    return lost("store_damaged", UNREADABLE, hint_of("store_damaged"), started=False, last=0)


def subshell_gone(name: str) -> Ruling:
    """The verdict of an execution that waited for a subshell which is not there any more."""
    return Ruling("error", _info("SessionError", f"there is no subshell {name[:80]!r}", "subshell_unknown"))


def hint_of(code: str) -> str:
    """What the table of codes advises."""
    info = CODES.get(code)
    return info.hint if info is not None else ""


_WHY: dict[str, str] = {"restart": "the session was restarted", "close": "the session was closed"}
_REASONS: dict[LossCause, str] = {
    "exit": "worker_ended",
    "violation": "protocol_violation",
    "drain": "output_drain",
    "restart": "restart",
    "close": "close",
}
_NEXT: dict[str, str] = {"restart": "The session's state is gone; run the code again.", "close": "Open a new session."}


def _by_ladder(ladder: Ladder, execution: Execution) -> Ruling:
    details = {"signal": int(signal.SIGKILL), "signal_name": "SIGKILL"}
    if ladder.reason == "timeout":
        text = (
            f"the execution took longer than its time-out of {execution.request.timeout:g} s, did not react to an "
            "interrupt, and was killed"
        )
        return Ruling("timeout", _info("TimeoutError", text, "execution_timeout", details=details))
    if ladder.reason == "output_limit":
        return output_limit(execution, [])
    text = "the execution did not react to an interrupt and was killed by signal SIGKILL (9)"
    return Ruling("killed", _info("killed", text, "execution_killed", details=details))


def _of_exit(status: ExitStatus) -> Ruling:
    details: dict[str, Any] = {}
    if status.signal is not None:
        name = _signal_name(status.signal)
        how = f"was ended by signal {name} ({status.signal})"
        details = {"signal": status.signal, "signal_name": name}
    elif status.code is not None:
        how = f"exited with code {status.code}"
        details = {"exit_code": status.code}
    else:
        how = "was killed together with its box"
    if status.exceeded == "memory":
        text = f"the worker used more memory than its session allows and {how}"
        return Ruling("oom", _info("MemoryError", text, "execution_oom", details=details))
    if status.exceeded == "processes":
        text = f"the worker had more processes than its session allows and {how}"
        return Ruling("killed", _info("ProcessLimitExceeded", text, "process_limit_exceeded", details=details))
    return Ruling("crashed", _info("crashed", f"the worker {how}", "execution_crashed", details=details))


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIGRTMIN+{number - signal.SIGRTMIN}" if number >= signal.SIGRTMIN else "unknown"


def _lost(text: str) -> Ruling:
    return Ruling("worker_lost", _info("worker_lost", text, "worker_lost"))


def _info(
    name: str, message: str, code: str, *, traceback: list[str] | None = None, details: dict[str, Any] | None = None
) -> ErrorInfo:
    return ErrorInfo(name, message, traceback or [], code, hint_of(code), details or {})
