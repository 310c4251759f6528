"""What a session tells, in Jupyter's words."""

from __future__ import annotations

from typing import Any

import pytest

from capsule.events import Display
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
