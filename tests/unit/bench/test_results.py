"""Results become JSON lines and come back, and a table shows them with what they must be."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from capsule_bench import records
from capsule_bench.model import Area, Contender, Failure, Load, Measure, Memory, Must, Result
from capsule_bench.table import YARDSTICK, markdown, must_text, number, verdict
from capsule_bench.yardstick import yardstick
from capsule_kernels import system

if TYPE_CHECKING:
    from pathlib import Path

LOAD = Load(samples=3)
FAST = Measure("fast", "a round trip", "ms", LOAD, LOAD, must=Must(median=0.5, ratio=5))
MANY = Measure("many", "things through", "things/s", LOAD, LOAD, higher_is_better=True, must=Must(median=3000))
FREE = Measure("free", "for interest", "ms", LOAD, LOAD)
AREA = Area("trivial", "trivial things", (FAST, MANY, FREE), (Contender("ours", "ours"), Contender("theirs", "theirs")))
BLANK = Result(
    area="trivial",
    measure="fast",
    contender="ours",
    unit="ms",
    run="2026-01-01T00:00:00+00:00",
    quick=False,
    machine={"cpu": "A processor", "cores": 2, "memory": 2**30, "system": "Linux", "load": 0.25},
    commit="abc123",
    python="3.11.7",
    versions={"thing": "1.0"},
    n=3,
    min=0.3,
    median=0.4,
    p99=0.6,
    rounds=[0.4],
    memory=Memory(1, 2, 3),
)


def result(**fields: Any) -> Result:
    """A result that differs from BLANK in these fields."""
    return replace(BLANK, **fields)


def failed(**fields: Any) -> Result:
    """A result without a figure."""
    error = Failure("WrongResultError", "lost a | bar\nand a line")
    return result(**{"n": 0, "min": None, "median": None, "p99": None, "rounds": [], "error": error, **fields})


def rows(table: str) -> list[list[str]]:
    """The cells of a table, row by row, without its ruler."""
    lines = [line for line in table.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.replace("\\|", "¦").strip("|").split("|")] for line in lines]
    return [cells[0], *cells[2:]]


@pytest.mark.parametrize("each", [result(), failed(), result(quick=True, contender="größer")])
def test_a_result_comes_back_from_its_line_as_it_was(each: Result) -> None:
    line = records.to_line(each)
    assert "\n" not in line
    assert records.from_line(line) == each


def test_a_line_has_what_a_reader_of_results_needs() -> None:
    fields = json.loads(records.to_line(result()))
    assert {"machine", "commit", "python", "versions", "n", "min", "median", "p99", "memory", "error"} <= set(fields)
    assert fields["memory"] == {"rss": 1, "rss_children": 2, "pss_children": 3}


@pytest.mark.parametrize("line", ["", "nonsense", "[]", "{}", '{"error": null, "memory": {}}', '"text"', "3"])
def test_what_is_no_result_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match="not a result"):
        records.from_line(line)


def test_results_are_added_to_the_end_of_their_file(tmp_path: Path) -> None:
    path = tmp_path / "new" / "trivial.jsonl"
    records.append(path, [result(), failed()])
    records.append(path, [result(contender="theirs")])
    assert records.read(path) == [result(), failed(), result(contender="theirs")]


def test_a_broken_line_is_named_by_its_number(tmp_path: Path) -> None:
    path = tmp_path / "trivial.jsonl"
    path.write_text(records.to_line(result()) + "\n\nbroken\n")
    with pytest.raises(ValueError, match=r"trivial\.jsonl, line 3"):
        records.read(path)


def test_only_the_newest_run_of_each_measure_counts() -> None:
    old, new = "2026-01-01T00:00:00+00:00", "2026-01-02T00:00:00+00:00"
    many = result(measure="many", run=old)
    history = [result(run=old), result(run=old, contender="theirs"), many, result(run=new)]
    assert records.latest(history) == [many, result(run=new)]


def test_the_ratio_comes_first_and_the_judgement_last() -> None:
    table = markdown(AREA, [result(), result(contender="theirs", median=2.6, p99=4.0)])
    head, row = rows(table)
    assert head == ["ratio", "trivial things", "ours", "theirs", "must", ""]
    assert row == ["6.5x", "a round trip", "0.4 ms (0.6)", "2.6 ms (4)", "≤ 0.5 ms, ≥ 5x theirs", "pass"]


def test_tries_that_were_repeated_are_told_with_their_figure() -> None:
    _, row = rows(markdown(AREA, [result(), result(contender="theirs", median=2.6, p99=4.0, repeated=1)]))
    assert row[2:4] == ["0.4 ms (0.6)", "2.6 ms (4), 1 repeated"]


def test_results_of_before_tries_were_counted_can_be_read() -> None:
    line = json.loads(records.to_line(BLANK))
    del line["repeated"]
    assert records.from_line(json.dumps(line)) == BLANK


def test_the_table_tells_where_its_figures_come_from() -> None:
    table = markdown(AREA, [result(), result(measure="many", quick=True, run="2026-01-02T00:00:00+00:00")])
    assert "2026-01-01T00:00:00+00:00: A processor, 2 cores, load 0.25, Linux, Python 3.11.7, commit abc123" in table
    assert "2026-01-02T00:00:00+00:00 (quick): " in table


def test_how_fast_the_machine_was_stands_below_where_it_is_known() -> None:
    assert "synced" not in markdown(AREA, [result()])
    fast = {"python_ns": 30.0, "wake_us": 13.7, "fork_ms": 1.41, "sync_ms": 0.176}
    table = markdown(AREA, [result(machine=BLANK.machine | fast)])
    told = "a turn of an empty loop 30 ns, a byte there and back 13.7 µs, a fork 1.41 ms, a synced page 0.176 ms"
    assert table.endswith(f"commit abc123; {told}\n")


def test_the_machine_is_measured_by_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fork", lambda: pytest.fail("this process has threads, perhaps"))
    before = set(system.children(os.getpid()))
    found = yardstick()
    assert found.keys() == YARDSTICK
    assert all(value > 0 for value in found.values())
    assert set(system.children(os.getpid())) <= before


def test_an_error_is_shown_in_its_row_and_keeps_the_table_whole() -> None:
    _, row = rows(markdown(AREA, [failed(), result(contender="theirs")]))
    assert row == ["", "a round trip", "WrongResultError: lost a ¦ bar and a line", *row[3:5], "error"]


def test_results_of_other_areas_are_left_out() -> None:
    assert len(rows(markdown(AREA, [result(area="other")]))) == 1


@pytest.mark.parametrize(
    ("measure", "ours", "theirs", "wanted"),
    [
        (FAST, result(median=0.5), result(median=2.5), "pass"),
        (FAST, result(median=0.51), result(median=25), "fail"),
        (FAST, result(median=0.5), result(median=2.4), "fail"),
        (FAST, result(median=0.5), failed(), "no reference"),
        (FAST, result(median=0.5), None, "no reference"),
        (FAST, result(median=0.6), None, "fail"),
        (FAST, failed(), result(), "error"),
        (FAST, None, result(), "not measured"),
        (MANY, result(median=3000), None, "pass"),
        (MANY, result(median=2999), None, "fail"),
        (FREE, result(), result(), ""),
    ],
)
def test_a_figure_is_judged_by_what_it_must_be(
    measure: Measure, ours: Result | None, theirs: Result | None, wanted: str
) -> None:
    assert verdict(measure, ours, theirs) == wanted


def test_what_a_figure_must_be_is_said_with_the_right_sign() -> None:
    assert must_text(FAST, "theirs") == "≤ 0.5 ms, ≥ 5x theirs"
    assert must_text(MANY, "theirs") == "≥ 3,000 things/s"
    assert must_text(FREE, "theirs") == ""


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.41234, "0.412"),
        (2.6, "2.6"),
        (99.96, "100"),
        (234.4, "234"),
        (512345, "512,000"),
        (0.0001, "0.0001"),
    ],
)
def test_numbers_have_three_significant_digits(value: float, text: str) -> None:
    assert number(value) == text


def test_a_must_may_bound_the_slowest_too() -> None:
    bounded = Measure("fast", "a round trip", "ms", LOAD, LOAD, must=Must(median=1, p99=2))
    assert must_text(bounded, "") == "≤ 1 ms, p99 ≤ 2 ms"
    assert verdict(bounded, result(median=0.5, p99=1.5), None) == "pass"
    assert verdict(bounded, result(median=0.5, p99=2.5), None) == "fail"


def test_a_must_may_bound_19_of_20() -> None:
    bounded = Measure("fast", "a round trip", "ms", LOAD, LOAD, must=Must(p95=50))
    assert must_text(bounded, "") == "p95 ≤ 50 ms"
    assert verdict(bounded, result(p95=49.9), None) == "pass"
    assert verdict(bounded, result(p95=50.1), None) == "fail"
    assert verdict(bounded, result(p95=None), None) == "fail"
