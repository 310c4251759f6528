"""A result is built from events alone, so it is tested with events alone."""

from __future__ import annotations

import pickle

import pytest

from capsule import ExecutionError, Result
from capsule.client.results import Collector
from capsule.events import (
    ClearOutput,
    Display,
    ErrorInfo,
    Event,
    Finished,
    Gap,
    InputRequest,
    Output,
    Progress,
    Started,
)

ID = "x_0123456789abcdef"


def collect(*events: Event, limit: int = 1000) -> Result:
    collector = Collector(limit)
    collector.feed(Started(ID, 1))
    for event in events:
        assert collector.result is None
        collector.feed(event)
    if collector.result is None:
        collector.feed(Finished(ID, 99, "ok"))
    assert collector.result is not None
    return collector.result


def out(text: str, stream: str = "stdout", dropped: int = 0) -> Output:
    return Output(ID, 2, stream, text, dropped)  # type: ignore[arg-type]  # the tests pass the two names only


def shown(text: str, display_id: str | None = None, *, update: bool = False) -> Display:
    return Display(ID, 2, {"text/plain": text}, {}, display_id, update)


def texts(result: Result) -> list[str]:
    return [display.data["text/plain"] for display in result.displays]


def test_streams_are_joined_and_kept_apart() -> None:
    result = collect(out("a"), out("E", "stderr"), out("b\n"), out("F", "stderr"))
    assert (result.stdout, result.stderr) == ("ab\n", "EF")


def test_the_verdict_brings_its_fields() -> None:
    error = ErrorInfo("ValueError", "no", ["line"], hint="think")
    last = Finished(ID, 3, "error", "", {}, {"m": 1}, error, execution_count=7, duration=0.5, dropped=3)
    result = collect(last)
    assert (result.verdict, result.error, result.metadata) == ("error", error, {"m": 1})
    assert (result.execution_id, result.execution_count, result.duration, result.dropped) == (ID, 7, 0.5, 3)


@pytest.mark.parametrize("shown", [True, False])
def test_it_tells_whether_the_value_is_among_the_displays(*, shown: bool) -> None:
    value = Display(ID, 2, {"text/plain": "2"}, {}, execution_count=1)
    result = collect(value, Finished(ID, 3, "ok", "2", {"text/plain": "2"}, shown=shown))
    assert (result.shown, result.displays) == (shown, [value])


def test_a_value_that_is_missing_or_had_no_room_was_not_shown() -> None:
    value = Display(ID, 3, {"text/plain": "2" * 100}, {}, execution_count=1)
    last = Finished(ID, 4, "ok", shown=True)
    assert not collect(Gap(ID, 3, 2), last).shown
    assert not collect(value, last, limit=50).shown
    assert collect(Gap(ID, 2, 1), value, last).shown


def test_text_and_data_are_those_of_the_last_expression() -> None:
    result = collect(Finished(ID, 2, "ok", "2", {"text/plain": "2"}))
    assert (result.ok, result.text, result.data) == (True, "2", {"text/plain": "2"})


def test_events_that_show_nothing_are_not_in_the_result() -> None:
    result = collect(Progress(ID, 2, 1.0, 2.0, "half"), InputRequest(ID, 3, "r", "name? ", password=False))
    assert result == Result("ok", execution_id=ID)


def test_an_update_replaces_every_display_of_its_id_in_place() -> None:
    result = collect(shown("1", "a"), shown("2"), shown("3", "a"), shown("4", "b"), shown("new", "a", update=True))
    assert texts(result) == ["new", "2", "new", "4"]
    assert not any(display.update for display in result.displays)


def test_an_update_of_a_display_of_an_earlier_execution_is_kept_as_such() -> None:
    result = collect(shown("new", "earlier", update=True))
    assert [(display.data["text/plain"], display.update) for display in result.displays] == [("new", True)]


def test_displays_without_an_id_are_never_updated() -> None:
    assert texts(collect(shown("1"), shown("2", update=True))) == ["1", "2"]


def test_clear_output_forgets_all_that_was_shown() -> None:
    result = collect(out("a"), out("e", "stderr"), shown("1"), ClearOutput(ID, 2, wait=False), out("b"))
    assert (result.stdout, result.stderr, result.displays) == ("b", "", [])


def test_clear_output_that_waits_forgets_at_the_next_output_only() -> None:
    waiting = ClearOutput(ID, 2, wait=True)
    assert collect(out("a"), waiting).stdout == "a"
    assert collect(out("a"), waiting, out("b"), out("c")).stdout == "bc"
    assert collect(out("a"), waiting, shown("1")).stdout == ""


def test_beyond_the_limit_output_is_dropped_and_counted() -> None:
    result = collect(out("12345"), out("6789"), out("0"), shown("xx"), Finished(ID, 3, "ok", dropped=4), limit=6)
    assert (result.stdout, result.displays, result.dropped) == ("123450", [], 4 + 4 + 2)


def test_clear_output_makes_room() -> None:
    result = collect(out("123456"), ClearOutput(ID, 2, wait=False), out("abcdef"), limit=6)
    assert (result.stdout, result.dropped) == ("abcdef", 0)


def test_a_display_that_is_updated_for_ever_stays_within_the_limit() -> None:
    updates = [shown(f"{number:04}", "bar", update=True) for number in range(1000)]
    result = collect(shown("----", "bar"), *updates, limit=10)
    assert (texts(result), result.dropped) == (["0999"], 0)


def test_raise_for_error_returns_a_good_result() -> None:
    result = collect(Finished(ID, 2, "ok", "1"))
    assert result.raise_for_error() is result


def test_raise_for_error_raises_what_happened() -> None:
    info = ErrorInfo("ZeroDivisionError", "division by zero", ["l1", "l2"], "execution_error", "divide by more")
    result = collect(Finished(ID, 2, "error", error=info))
    with pytest.raises(ExecutionError, match="ZeroDivisionError: division by zero") as caught:
        result.raise_for_error()
    assert caught.value.result is result
    assert (caught.value.code, caught.value.hint) == ("execution_error", "divide by more")


def test_raise_for_error_copes_with_a_verdict_without_details() -> None:
    with pytest.raises(ExecutionError) as caught:
        Result("timeout").raise_for_error()
    assert caught.value.code == "execution_timeout"


@pytest.mark.parametrize(
    ("result", "text"),
    [
        (Result("ok", text="2", execution_id=ID), f"<Result {ID} ok text='2'>"),
        (Result("ok"), "<Result x_? ok>"),
        (
            Result("error", stdout="ab", stderr="c", error=ErrorInfo("E", "m"), execution_id=ID, dropped=5),
            f"<Result {ID} error stdout=2 stderr=1 error='E: m' dropped=5>",
        ),
        (Result("ok", text="x" * 100), f"<Result x_? ok text='{'x' * 59}…'>"),
    ],
)
def test_repr_is_one_short_line(result: Result, text: str) -> None:
    assert repr(result) == text


def test_a_result_can_be_pickled() -> None:
    result = collect(out("a"), shown("1"))
    assert pickle.loads(pickle.dumps(result)) == result
