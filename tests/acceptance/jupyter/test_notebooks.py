"""Programs that execute notebooks use our kernel as any other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbformat.v4 import new_code_cell, new_notebook

from tests.acceptance.jupyter import support

if TYPE_CHECKING:
    from pathlib import Path

CELLS = [
    "print('hello')",
    "import sys; print('careful', file=sys.stderr)\n6 * 7",
    "%matplotlib inline\nimport matplotlib.pyplot as plt\n_ = plt.plot([1, 2])",
    "from IPython.display import display, HTML\ndisplay(HTML('<b>x</b>'))",
    "h = display('one', display_id='a')",
    "h.update('two')",
    "import asyncio; await asyncio.sleep(0.01); 'awaited'",
]


def notebook(*sources: str) -> Any:
    return new_notebook(cells=[new_code_cell(source) for source in sources])


def kinds(cell: Any) -> list[str]:
    return [output.output_type for output in cell.outputs]


@pytest.mark.parametrize("name", support.ROUTES)
def test_nbclient_executes_a_notebook(home: support.Home, name: str) -> None:
    done = NotebookClient(notebook(*CELLS), kernel_name=name, timeout=support.LONG).execute()
    nbformat.validate(done)
    assert [cell.execution_count for cell in done.cells] == list(range(1, len(CELLS) + 1))
    hello, both, plot, html, one, _, awaited = done.cells
    assert hello.outputs[0].text == "hello\n"
    assert kinds(both) == ["stream", "execute_result"]
    assert plot.outputs[0].data["image/png"].startswith("iVBOR")
    assert html.outputs[0].data["text/html"] == "<b>x</b>"
    assert one.outputs[0].data["text/plain"] == "'two'"
    assert awaited.outputs[0].data["text/plain"] == "'awaited'"


def test_an_error_ends_the_execution_and_is_in_the_notebook(home: support.Home) -> None:
    wrong = notebook("1/0", "print('never')")
    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        NotebookClient(wrong, kernel_name=support.PROVISIONER, timeout=support.LONG).execute()
    assert kinds(wrong.cells[0]) == ["error"]
    assert wrong.cells[1].outputs == []


def test_errors_may_be_allowed(home: support.Home) -> None:
    wrong = notebook("1/0", "print('all the same')")
    NotebookClient(wrong, kernel_name=support.PROVISIONER, timeout=support.LONG, allow_errors=True).execute()
    assert kinds(wrong.cells[0]) == ["error"]
    assert wrong.cells[1].outputs[0].text == "all the same\n"


def test_a_cell_that_takes_too_long_is_interrupted(home: support.Home) -> None:
    slow = notebook("while True: pass", "print('goes on')")
    client = NotebookClient(
        slow, kernel_name=support.PROVISIONER, timeout=1, interrupt_on_timeout=True, allow_errors=True
    )
    client.execute()
    assert slow.cells[0].outputs[0].ename == "KeyboardInterrupt"
    assert slow.cells[1].outputs[0].text == "goes on\n"


@pytest.mark.parametrize("name", support.ROUTES)
def test_a_kernel_that_dies_is_told(home: support.Home, name: str) -> None:
    dying = notebook("import os; os._exit(1)")
    with pytest.raises(DeadKernelError):
        NotebookClient(dying, kernel_name=name, timeout=support.LONG).execute()


def test_the_history_is_where_the_arguments_say(home: support.Home) -> None:
    done = notebook("get_ipython().history_manager.hist_file")
    NotebookClient(done, kernel_name=support.PROVISIONER, timeout=support.LONG).execute()
    assert done.cells[0].outputs[0].data["text/plain"] == "':memory:'"


def test_papermill_executes_a_notebook_with_parameters(home: support.Home, tmp_path: Path) -> None:
    import papermill

    template = notebook("who = 'nobody'", "print('hello', who)")
    template.cells[0].metadata["tags"] = ["parameters"]
    template.metadata["kernelspec"] = {"name": support.PROVISIONER, "display_name": "x", "language": "python"}
    nbformat.write(template, tmp_path / "in.ipynb")
    done = papermill.execute_notebook(
        str(tmp_path / "in.ipynb"), str(tmp_path / "out.ipynb"), {"who": "Ada"}, progress_bar=False
    )
    assert done.cells[-1].outputs[0].text == "hello Ada\n"
