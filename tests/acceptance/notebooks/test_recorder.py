"""Events become the outputs of a notebook's cells; no process runs here."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from capsule import ArgumentError, notebooks
from capsule.events import ClearOutput, Display, ErrorInfo, Finished, Output, Started

if TYPE_CHECKING:
    from pathlib import Path

    from capsule.events import Event


def out(text: str, stream: Any = "stdout") -> Output:
    return Output("x", 1, stream, text)


def display(value: object, display_id: str | None = None, *, update: bool = False) -> Display:
    return Display("x", 1, {"text/plain": str(value)}, {}, display_id, update)


def record(*cells: list[Event]) -> list[Any]:
    """The outputs of cells with these events, in short; the notebook must be valid."""
    notebook = new_notebook(cells=[new_code_cell("…", outputs=[new_output("stream", text="old")]) for _ in cells])
    recorder = notebooks.Recorder(notebook)
    for cell, events in zip(notebook.cells, cells, strict=True):
        recorder.begin(cell)
        for event in [Started("x", 1), *events]:
            recorder.feed(event)
    recorder.end()
    nbformat.validate(notebook)
    return [[_short(output) for output in cell.outputs] for cell in notebook.cells]


def _short(output: Any) -> Any:
    if output.output_type == "stream":
        return (output.name, output.text)
    return output.ename if output.output_type == "error" else output.data["text/plain"]


def test_neighbours_of_one_stream_are_one_output() -> None:
    events: list[Event] = [out("a"), out("b\n"), out("c", "stderr"), out("d"), display(1), out("e")]
    assert record(events) == [[("stdout", "ab\n"), ("stderr", "c"), ("stdout", "d"), "1", ("stdout", "e")]]


def test_a_stream_does_not_go_on_in_the_next_cell() -> None:
    assert record([out("a")], [out("b")], []) == [[("stdout", "a")], [("stdout", "b")], []]


def test_updates_reach_every_display_of_their_id_in_all_cells() -> None:
    first: list[Event] = [display("above"), display(1, "here"), display("below")]
    second: list[Event] = [display(2, "here"), display(3, "there"), display(4, "here", update=True)]
    third: list[Event] = [display(5, "there", update=True), display(6, "nowhere", update=True)]
    assert record(first, second, third) == [["above", "4", "below"], ["4", "5"], []]


def test_clear_output_forgets_what_the_cell_showed() -> None:
    events: list[Event] = [out("a"), display(1, "id"), ClearOutput("x", 1, wait=False), out("b")]
    update = display(2, "id", update=True)
    assert record([out("kept")], events, [update]) == [[("stdout", "kept")], [("stdout", "b")], []]


def test_clear_output_that_waits_forgets_when_something_comes() -> None:
    wait = ClearOutput("x", 1, wait=True)
    assert record([out("a"), wait], [out("a"), wait, out("b")], [out("a"), wait, display(1)]) == [
        *([("stdout", "a")], [("stdout", "b")], ["1"]),
    ]


def test_the_verdict_gives_result_error_and_count() -> None:
    notebook = new_notebook(cells=[new_code_cell("1"), new_code_cell("1/0"), new_code_cell("None")])
    recorder = notebooks.Recorder(notebook)
    bundle = {"text/plain": "1", "image/png": b"\x89PNG", "application/json": {"a": [1]}}
    error = ErrorInfo("ZeroDivisionError", "division by zero", ["Traceback", "ZeroDivisionError: division by zero"])
    for cell, verdict in zip(
        notebook.cells,
        [
            Finished("x", 2, "ok", "1", bundle, {}),
            Finished("x", 2, "error", error=error, execution_count=7),
            Finished("x", 2, "ok", execution_count=8),
        ],
        strict=True,
    ):
        recorder.begin(cell)
        recorder.feed(verdict)
    nbformat.validate(notebook)
    result, failure, nothing = notebook.cells
    assert result.outputs[0].output_type == "execute_result"
    assert result.outputs[0].data == {"text/plain": "1", "image/png": "iVBORw==", "application/json": {"a": [1]}}
    assert (failure.execution_count, failure.outputs[0].traceback) == (7, error.traceback)
    assert (nothing.execution_count, nothing.outputs) == (8, [])


def test_odd_values_in_a_bundle_still_make_a_valid_notebook() -> None:
    odd: list[Event] = [Display("x", 1, {"text/plain": 5}, {}), Display("x", 2, {"text/plain": ["a"]}, {})]
    assert record(odd) == [["5", "['a']"]]


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    file = tmp_path / "real.ipynb"
    file.write_text("old")
    file.chmod(0o640)
    (tmp_path / "link.ipynb").symlink_to(file)
    notebook = new_notebook(cells=[new_markdown_cell("☃")])
    notebooks.write(notebook, tmp_path / "link.ipynb")
    assert notebooks.read(file) == notebook
    assert file.stat().st_mode & 0o777 == 0o640
    with pytest.raises(TypeError):
        notebooks.write(nbformat.from_dict({**notebook, "metadata": {"bad": object()}}), file)
    assert notebooks.read(file) == notebook
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.ipynb", "real.ipynb"]


@pytest.mark.parametrize(
    "text",
    ["", "print(1)", "[]", "null", '{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": 3}'],
)
def test_what_is_no_notebook_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "bad.ipynb").write_text(text)
    with pytest.raises(ArgumentError, match=r"path: .*not a notebook"):
        notebooks.read(tmp_path / "bad.ipynb")
    with pytest.raises(ArgumentError, match=r"path: .*not a notebook"):
        notebooks.read(tmp_path / "missing.ipynb")


def test_a_notebook_in_another_language_is_refused(tmp_path: Path) -> None:
    kernel = {"name": "ir", "display_name": "R", "language": "R"}
    nbformat.write(new_notebook(metadata={"kernelspec": kernel}), tmp_path / "r.ipynb")
    with pytest.raises(ArgumentError, match="written in r; allowed: notebooks in Python"):
        notebooks.read(tmp_path / "r.ipynb")


def test_an_old_notebook_is_read_as_nbformat_4(tmp_path: Path) -> None:
    cell = {"cell_type": "code", "language": "python", "input": "1", "outputs": [], "metadata": {}, "collapsed": False}
    sheets = [{"cells": [cell], "metadata": {}}]
    old = {"nbformat": 3, "nbformat_minor": 0, "metadata": {"name": "old"}, "worksheets": sheets}
    (tmp_path / "old.ipynb").write_text(json.dumps(old))
    notebook = notebooks.read(tmp_path / "old.ipynb")
    assert (notebook.nbformat, notebook.cells[0].source) == (4, "1")
