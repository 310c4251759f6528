"""What an event takes is counted in all its parts: sandboxed code chooses how large each is."""

from __future__ import annotations

import pytest

from capsule.events import Display, ErrorInfo, Event, Finished
from capsule.wire import size_of

LARGE = 100_000
NESTED = {"inner": ["x" * LARGE]}
BIG_ERROR = ErrorInfo("E", "x" * LARGE, [])


@pytest.mark.parametrize(
    "event",
    [
        Display("x_1", 1, {"application/json": NESTED}, {}),
        Display("x_1", 1, {}, NESTED),
        Display("x_1", 1, {}, {}, transient=NESTED),
        Finished("x_1", 1, "ok", "x" * LARGE),
        Finished("x_1", 1, "ok", data={"application/json": NESTED}),
        Finished("x_1", 1, "ok", metadata=NESTED),
        Finished("x_1", 1, "ok", user_expressions=NESTED),
        Finished("x_1", 1, "ok", payload=[NESTED]),
        Finished("x_1", 1, "error", error=BIG_ERROR),
        Finished("x_1", 1, "error", error=ErrorInfo("E", "", ["x" * LARGE])),
        Finished("x_1", 1, "error", error=ErrorInfo("E", "", [], details=NESTED)),
    ],
)
def test_whatever_part_is_large_makes_an_event_large(event: Event) -> None:
    assert LARGE <= size_of(event) < 2 * LARGE
