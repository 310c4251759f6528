"""Packs: the values that a policy starts from. What its file says takes the place of what its pack says."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from capsule.broker.consent import Rule
from capsule.broker.limits import LimitsTable
from capsule.settings.base import Config, Seconds

PackName = Literal["strict", "balanced", "perf", "hardcore"]
Mode = Literal["enforce", "observe"]
"""`observe`: a call that only a bound stands against is made, and recorded as one that would have been denied."""
Level = Literal["none", "landlock", "namespaces"]
"""Of the sandbox, from the weakest on."""

Percent = Annotated[float, Field(gt=0, le=100)]


class BudgetSettings(Config):
    """How many failed calls a session may have of one provider: `faults` within `window` seconds are 100 %.

    From `warn` percent on it is told, from `throttle` on each call waits `delay` seconds, at `isolate` there are no
    calls for `pause` seconds, then one, and if that fails too none for twice as long, up to `longest_pause`.
    """

    faults: Annotated[int, Field(ge=1, le=100_000)] = 100
    window: Seconds = 60.0
    warn: Percent = 60.0
    throttle: Percent = 80.0
    isolate: Percent = 100.0
    delay: Annotated[float, Field(ge=0, le=60)] = 0.5
    pause: Seconds = 30.0
    longest_pause: Seconds = 600.0

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        """Else a step would be accepted and never be reached."""
        if not self.warn <= self.throttle <= self.isolate:
            raise _contradiction("warn, throttle and isolate are not in order", "warn ≤ throttle ≤ isolate")
        if self.pause > self.longest_pause:
            raise _contradiction("pause is longer than longest_pause", "pause ≤ longest_pause")
        return self


class AuditSettings(Config):
    """The audit trail: what a record outlives (`power`: a cut of the power, `process`: the death of the node), and
    whether calls `stop` when it cannot be written, or `continue`.

    A file has about `file_bytes`; of full ones the newest `keep_files` are kept. Every `anchor_every` records, and when
    a file is closed, it is signed how far the trail goes.
    """

    level: Literal["power", "process"] = "process"
    on_failure: Literal["stop", "continue"] = "stop"
    file_bytes: Annotated[int, Field(ge=2**16, le=2**40)] = 64 * 2**20
    keep_files: Annotated[int, Field(ge=1, le=100_000)] = 30
    anchor_every: Annotated[int, Field(ge=1, le=1_000_000)] = 256


class Pack(Config):
    """One pack. `ceiling`: what no grant's limits, nor those of an operation, may be above."""

    summary: str
    sandbox: Level
    approval: Rule
    approval_timeout: Seconds
    ceiling: LimitsTable
    budget: BudgetSettings
    audit: AuditSettings


PACKS: dict[PackName, Pack] = {
    "strict": Pack(
        summary="For code that nobody has read",
        sandbox="landlock",
        approval="never",
        approval_timeout=300.0,
        ceiling=LimitsTable(
            timeout=60.0,
            per_second=50.0,
            concurrent=8,
            request_bytes=2**26,
            response_bytes=2**28,
            total_bytes=2**31,
        ),
        budget=BudgetSettings(),
        audit=AuditSettings(level="power"),
    ),
    "balanced": Pack(
        summary="For agents and notebooks of people that you know; where none is named",
        sandbox="landlock",
        approval="never",
        approval_timeout=900.0,
        ceiling=LimitsTable(
            timeout=600.0,
            per_second=500.0,
            concurrent=32,
            request_bytes=2**28,
            response_bytes=2**30,
            total_bytes=2**35,
        ),
        budget=BudgetSettings(),
        audit=AuditSettings(),
    ),
    "perf": Pack(
        summary="For much data and many calls, of code that you trust not to misuse its grants",
        sandbox="landlock",
        approval="never",
        approval_timeout=900.0,
        ceiling=LimitsTable(timeout=3600.0, concurrent=256, request_bytes=2**33, response_bytes=2**33),
        budget=BudgetSettings(faults=1000, delay=0.1, pause=5.0, longest_pause=60.0),
        audit=AuditSettings(file_bytes=2**28, anchor_every=1024),
    ),
    "hardcore": Pack(
        summary="For code that you expect to attack",
        sandbox="namespaces",
        approval="first",
        approval_timeout=120.0,
        ceiling=LimitsTable(
            timeout=15.0,
            per_second=10.0,
            concurrent=2,
            request_bytes=2**22,
            response_bytes=2**24,
            total_bytes=2**28,
        ),
        budget=BudgetSettings(faults=20, delay=2.0, pause=120.0, longest_pause=3600.0),
        audit=AuditSettings(level="power", anchor_every=16),
    ),
}
"""What each pack says. docs/reference/policy.md has this table."""

DEFAULT_PACK: PackName = "balanced"


def _contradiction(text: str, expected: str) -> PydanticCustomError:
    return PydanticCustomError("contradiction", "{text}", {"text": text, "expected": expected})
