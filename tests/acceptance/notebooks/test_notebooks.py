"""`capsule run FILE.ipynb`: which cells run, where the run ends, what is shown and what is written back."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from tests.acceptance.cli.support import Running, capsule

EXAMPLES = Path(__file__).parents[3] / "docs" / "examples"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the notebooks of a test are."""
    return tmp_path


def save(folder: Path, *sources: str, tags: dict[int, str] | None = None) -> Path:
    cells = [new_code_cell(source) for source in sources]
    for number, tag in (tags or {}).items():
        cells[number].metadata["tags"] = [tag]
    nbformat.write(new_notebook(cells=[new_markdown_cell("# Title"), *cells]), folder / "in.ipynb")
    return folder / "in.ipynb"


def outputs(path: Path) -> list[Any]:
    """What the code cells of a valid notebook have shown, in short."""
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    return [
        [output.get("text") or output.get("ename") or output.data["text/plain"] for output in cell.outputs]
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


def test_cells_run_in_order_in_one_session_beside_the_notebook(folder: Path) -> None:
    (folder / "beside.py").write_text("WORD = 'beside'")
    path = save(folder, "import beside, os, sys\nx = beside.WORD", "x", "print(sys.argv[1:], os.getcwd(), end='')", "2")
    done = capsule("run", path, "a", "-b", cwd=Path("/"))
    assert (done.returncode, done.stdout.decode()) == (0, f"'beside'\n['a', '-b'] {folder}\n2\n"), done.stderr


def test_the_outputs_are_written_back(folder: Path) -> None:
    path = save(
        folder,
        "handle = display('first', display_id=True)",
        "await __import__('asyncio').sleep(0, 'slept')",
        "",
        "handle.update('second'); print('done')",
    )
    assert capsule("run", path, "--output", "x").returncode == 0  # behind the file, it is the code's argument
    done = capsule("run", "--output", path, path)
    assert done.returncode == 0, done.stderr
    assert outputs(path) == [["'second'"], ["'slept'"], [], ["done\n"]]
    counts = [cell.get("execution_count") for cell in nbformat.read(path, as_version=4).cells]
    assert counts == [None, 1, 2, None, 3]


def test_the_run_ends_at_the_first_error_with_what_there_was(folder: Path) -> None:
    path = save(folder, "print(1)", "1/0", "print(2)")
    done = capsule("run", "--output", folder / "out.ipynb", path)
    assert (done.returncode, done.stdout) == (1, b"1\n")
    assert b"Cell In[2], line 1" in done.stderr
    assert outputs(folder / "out.ipynb") == [["1\n"], ["ZeroDivisionError"], []]


def test_errors_that_are_allowed_or_expected_do_not_end_it(folder: Path) -> None:
    path = save(
        folder,
        "1/0",
        "print(1)",
        "print(2)",
        "import sys; sys.exit(5)",
        tags={0: "raises-exception", 1: "skip-execution"},
    )
    out = folder / "out.ipynb"
    assert capsule("run", "--output", out, path).returncode == 1
    assert outputs(out) == [["ZeroDivisionError"], [], ["2\n"], ["SystemExit"]]
    assert capsule("run", "--allow-errors", "--output", out, path).returncode == 0
    assert outputs(out) == [["ZeroDivisionError"], [], ["2\n"], ["SystemExit"]]


def test_a_dead_worker_ends_it_even_so(folder: Path) -> None:
    path = save(folder, "print(1, flush=True)\nimport os; os._exit(1)", "print(2)")
    done = capsule("run", "--allow-errors", "--output", folder / "out.ipynb", path)
    assert (done.returncode, done.stdout) == (3, b"1\n")
    assert outputs(folder / "out.ipynb") == [["1\n", "crashed"], []]


def test_a_timeout_is_for_each_cell(folder: Path) -> None:
    path = save(folder, "import time; time.sleep(0.1)", "print('in time')", "while True: pass", "print('not reached')")
    done = capsule("run", "--timeout", "5", path)
    assert (done.returncode, done.stdout) == (124, b"in time\n")


@pytest.mark.parametrize("presses", [1, 2])
def test_ctrl_c_ends_it_and_keeps_the_outputs(folder: Path, presses: int) -> None:
    code = "while True:\n  try:\n    print('begun')\n    while True: pass\n  except BaseException:\n    print('caught')"
    path = save(folder, "print(1)", code if presses == 2 else code.replace("print('caught')", "raise"), "print(2)")
    with Running("run", "--allow-errors", "--output", folder / "out.ipynb", path) as running:
        running.until(b"begun\n")
        running.interrupt()
        if presses == 2:
            running.until(b"caught\n")
            running.process.send_signal(signal.SIGINT)
        assert running.end()[0] == 130
    first, second, third = outputs(folder / "out.ipynb")
    assert first == ["1\n"]
    assert second[0].startswith("begun\n")
    assert third == []


def test_json_names_the_cell_of_each_event(folder: Path) -> None:
    done = capsule("run", "--json", save(folder, "1", "2"))
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(event["event"], event["cell"]) for event in events] == [
        *(("started", 1), ("finished", 1), ("started", 2), ("finished", 2)),
    ]


def test_input_in_a_cell(folder: Path) -> None:
    done = capsule("run", save(folder, "input('? ')", "input()"), stdin=b"one\n")
    assert (done.returncode, done.stdout) == (1, b"? \n'one'\n")
    assert b"EOFError" in done.stderr


def test_output_of_threads_that_an_earlier_cell_left(folder: Path) -> None:
    first = "import threading\ngo, done = threading.Event(), threading.Event()\n"
    first += "threading.Thread(target=lambda: (go.wait(), print('late', flush=True), done.set())).start()"
    done = capsule("run", save(folder, first, "go.set(); done.wait(); print('now')"))
    assert sorted(done.stdout.split()) == [b"late", b"now"]


@pytest.mark.parametrize("text", ["", "{}", "print(1)"])
def test_what_is_no_notebook_is_wrong_usage(folder: Path, text: str) -> None:
    (folder / "bad.ipynb").write_text(text)
    done = capsule("run", folder / "bad.ipynb")
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.startswith(b"capsule: path: ")


def test_an_output_in_a_folder_that_does_not_exist_is_wrong_usage(folder: Path) -> None:
    done = capsule("run", "--output", folder / "missing" / "out.ipynb", save(folder, "print(1)"))
    assert (done.returncode, done.stdout) == (2, b"")


def test_the_examples_of_make_demo_run() -> None:
    script = capsule("run", EXAMPLES / "tour.py")
    assert script.returncode == 0, script.stderr
    assert b"Delivered: tea" in script.stdout
    notebook = capsule("run", EXAMPLES / "tour.ipynb")
    assert notebook.returncode == 0, notebook.stderr
    assert notebook.stdout.endswith(b"The session lives on: 11.0\n")
    assert b"ZeroDivisionError" in notebook.stderr
