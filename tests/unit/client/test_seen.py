"""Who has missed what a verdict relies on is not told that it was shown."""

from __future__ import annotations

import pytest

from capsule.events import Display, Event, Finished, Gap, Output
from capsule.seen import Seen

VALUE = Display("x_1", 3, {"text/plain": "1"}, {}, execution_count=1)
ERROR = Display("x_1", 3, {"application/vnd.jupyter.error": {}}, {})
GAP = Gap("x_1", 2, 1)
PICTURE = Display("x_1", 3, {"image/png": b""}, {})
TEXT = Output("x_1", 3, "stdout", "text")


@pytest.mark.parametrize(
    ("events", "shown"),
    [
        ([], True),
        ([VALUE], True),
        ([GAP], False),
        ([VALUE, GAP], False),
        ([GAP, VALUE], True),
        ([GAP, ERROR], True),
        ([GAP, PICTURE, TEXT], False),
    ],
)
def test_a_verdict_is_shown_unless_something_is_missing_since_the_last_outcome(
    events: list[Event], *, shown: bool
) -> None:
    seen = Seen()
    assert [seen.told(event, "x_1") for event in events] == events
    seen.told(Gap("x_2", 1, 1), "x_2")
    last = seen.told(Finished("x_1", 9, "ok", shown=True), "x_1")
    assert isinstance(last, Finished)
    assert last.shown is shown


def test_what_could_not_be_told_is_missing_until_the_verdict() -> None:
    seen = Seen()
    verdict = Finished("x_1", 9, "ok", shown=True)
    seen.told(VALUE, "x_1")
    seen.missed("x_1")
    assert seen.told(verdict, "x_1") == Finished("x_1", 9, "ok", shown=False)
    assert seen.told(verdict, "x_1") == verdict
