"""`jupyter nbconvert --execute` runs notebooks in sessions."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from tests.acceptance.jupyter import support

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("name", support.ROUTES)
def test_nbconvert_executes_a_notebook(tmp_path: Path, name: str) -> None:
    cells = ["import sys\nn = 6", "print('hello')\nn * 7", "'capsule' in type(get_ipython()).__module__"]
    nbformat.write(new_notebook(cells=[new_code_cell(cell) for cell in cells]), tmp_path / "report.ipynb")
    command = [sys.executable, "-m", "nbconvert", "--execute", f"--ExecutePreprocessor.kernel_name={name}"]
    command += ["--to", "notebook", "--output", "done.ipynb", str(tmp_path / "report.ipynb")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=support.LONG, check=False)
    assert done.returncode == 0, done.stderr
    made = nbformat.read(tmp_path / "done.ipynb", 4)
    hello, value = made.cells[1].outputs
    assert (hello.text, value.data["text/plain"]) == ("hello\n", "42")
    assert made.cells[2].outputs[0].data["text/plain"] == "True"
