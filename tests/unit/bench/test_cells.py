"""The code that contenders are given does what the checks expect, and the checks notice when it does not."""

from __future__ import annotations

import ast
import contextlib
import io

import pytest

from capsule_bench import cells
from capsule_bench.model import WrongResultError


def run(code: str) -> str:
    """The output of code, by the interpreter itself."""
    caught = io.StringIO()
    with contextlib.redirect_stdout(caught):
        exec(code, {})
    return caught.getvalue()


def test_lines_are_what_the_code_prints() -> None:
    code, wanted = cells.lines(1000)
    assert run(code) == wanted
    assert wanted.count("\n") == 1000


def test_megabytes_are_what_the_code_writes_and_as_many_as_promised() -> None:
    code, wanted = cells.megabytes(3)
    assert run(code) == wanted
    assert len(wanted.encode()) == 3_000_000


def test_the_long_string_is_the_value_of_the_code() -> None:
    code, wanted = cells.long_string(1)
    assert repr(eval(code)) == wanted
    assert len(wanted) == 1_000_002


@pytest.mark.parametrize("code", [cells.ONE_PLUS_ONE, cells.COUNT, cells.COUNTED, cells.SPIN, cells.IMPORT_ASYNCIO])
def test_every_cell_is_python(code: str) -> None:
    assert ast.parse(code)


def test_expect_lets_pass_what_is_equal() -> None:
    cells.expect("value", "2", "2")


def test_expect_names_both_values_when_they_differ() -> None:
    with pytest.raises(WrongResultError, match="value: got '3', wanted '2'"):
        cells.expect("value", "3", "2")


@pytest.mark.parametrize(
    ("got", "place"), [("a" * 50 + "b" + "a" * 49, "50"), ("a" * 99, "99"), ("a" * 101, "100"), ("", "0")]
)
def test_expect_tells_where_long_texts_differ_instead_of_showing_them(got: str, place: str) -> None:
    with pytest.raises(WrongResultError, match=rf"{len(got)} characters of 100, different from character {place} on"):
        cells.expect("output", got, "a" * 100)
