"""What a session tells, in Jupyter's words."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from capsule.events import Display, ErrorInfo, Finished
from capsule.jupyter.translate import ERROR, Shown, shown


def display(told: Any) -> Display:
    return Display("x_1", 1, {ERROR: told, "text/plain": "E: m"}, {})


def test_an_error_that_code_shows_is_an_error_of_jupyters() -> None:
    content = {"ename": "E", "evalue": "m", "traceback": ["1", "E: m"]}
    assert shown(display({**content, "more": 1})) == Shown("error", content)


@pytest.mark.parametrize(
    "told",
    [
        "E: m",
        {"ename": "E", "evalue": "m"},
        {"ename": "E", "evalue": "m", "traceback": "E: m"},
        {"ename": "E", "evalue": "m", "traceback": [1]},
        {"ename": None, "evalue": "m", "traceback": []},
    ],
)
def test_what_is_no_error_stays_a_display(told: Any) -> None:
    found = shown(display(told))
    assert found is not None
    assert (found.kind, found.content["data"][ERROR]) == ("display_data", told)


def test_a_value_of_an_expression_is_a_result_with_its_number() -> None:
    event = Display("x_1", 2, {"text/plain": "1"}, {"m": 2}, execution_count=3)
    content = {"data": {"text/plain": "1"}, "metadata": {"m": 2}, "execution_count": 3}
    assert shown(event) == Shown("execute_result", content)


def test_what_code_says_of_a_display_is_transient() -> None:
    event = Display("x_1", 2, {}, {}, display_id="5", update=True, transient={"display_id": 5, "more": None})
    told = shown(event)
    assert told is not None
    assert (told.kind, told.content["transient"]) == ("update_display_data", {"display_id": 5, "more": None})


def test_a_verdict_says_nothing_once_more() -> None:
    error = ErrorInfo("E", "m", ["E: m"])
    verdicts = [Finished("x_1", 3, "ok", data={"text/plain": "1"}), Finished("x_1", 3, "error", error=error)]
    assert [told.kind for one in verdicts if (told := shown(one)) is not None] == ["execute_result", "error"]
    assert [shown(replace(one, shown=True)) for one in verdicts] == [None, None]
