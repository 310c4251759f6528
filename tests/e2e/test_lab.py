"""What users of JupyterLab do, in a real browser, with sessions as kernels."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from tests.e2e.lab import Lab, Notebook

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.timeout(600)

PLOT = "import matplotlib.pyplot as plt\n_ = plt.plot([n * n for n in range(20)])"
SLIDER = "import ipywidgets\nslider = ipywidgets.IntSlider(value=3)\nslider"
DOUBLED = """\
shown = ipywidgets.Label('nothing')
def show(change):
    shown.value = f'twice is {2 * change.new}'
slider.observe(show, 'value')
shown"""

INTERACT = """\
import ipywidgets
import matplotlib.pyplot as plt
@ipywidgets.interact(n=(1, 9))
def draw(n=3):
    print('powers of', n)
    plt.plot([n**k for k in range(5)])"""


def test_cells_run_and_show_output_results_errors_and_plots(lab: Lab, page: Page) -> None:
    lab.write("cells.ipynb", "print('hello')\n6 * 7", PLOT, "1 / 0")
    notebook = Notebook(page, lab, "cells.ipynb")
    notebook.expect_state("Idle")
    notebook.run(0, 1, 2)
    expect(notebook.output(0)).to_have_text(re.compile(r"hello\s*\[1\]:\s*42", re.DOTALL))
    expect(notebook.output(1).locator("img")).to_be_visible()
    expect(notebook.output(2)).to_contain_text("ZeroDivisionError: division by zero")
    notebook.expect_count(2, 3)


def test_an_error_stops_what_waits_behind_it(lab: Lab, page: Page) -> None:
    os.mkfifo(lab.folder / "gate")
    lab.write("stops.ipynb", "open('gate').read()", "1 / 0", "print('never')", "print('all the same')")
    notebook = Notebook(page, lab, "stops.ipynb")
    notebook.expect_state("Idle")
    notebook.run(0, 1, 2)
    notebook.expect_count(2, "*")
    (lab.folder / "gate").write_text("open")
    expect(notebook.output(1)).to_contain_text("ZeroDivisionError")
    notebook.expect_count(2, " ")
    notebook.run(3)
    expect(notebook.output(3)).to_have_text("all the same")
    expect(notebook.output(2)).to_be_empty()


def test_code_asks_its_user(lab: Lab, page: Page) -> None:
    lab.write("asks.ipynb", "'so you are ' + input('name? ')")
    notebook = Notebook(page, lab, "asks.ipynb")
    notebook.expect_state("Idle")
    notebook.run(0)
    expect(notebook.output(0)).to_contain_text("name?")
    notebook.output(0).locator("input").fill("Ada")
    notebook.output(0).locator("input").press("Enter")
    expect(notebook.output(0)).to_contain_text("so you are Ada")


def test_a_slider_moves_code_and_code_moves_the_slider(lab: Lab, page: Page) -> None:
    lab.write("widgets.ipynb", SLIDER, DOUBLED, "slider.value = 41")
    notebook = Notebook(page, lab, "widgets.ipynb")
    notebook.expect_state("Idle")
    notebook.run(0, 1)
    expect(notebook.output(1)).to_contain_text("nothing")
    notebook.output(0).locator(".noUi-handle").focus()
    page.keyboard.press("ArrowRight")
    expect(notebook.output(1)).to_contain_text("twice is 8")
    notebook.run(2)
    expect(notebook.output(0).locator(".widget-readout")).to_have_text("41")
    expect(notebook.output(1)).to_contain_text("twice is 82")


def test_a_slider_moves_code_while_a_cell_runs(lab: Lab, page: Page) -> None:
    """JupyterLab says what widgets say to a subshell."""
    lab.write("busy.ipynb", SLIDER, DOUBLED, "print('busy')\nwhile slider.value < 4: pass\nprint('moved')")
    notebook = Notebook(page, lab, "busy.ipynb")
    notebook.expect_state("Idle")
    notebook.run(0, 1, 2)
    expect(notebook.output(2)).to_contain_text("busy")
    notebook.output(0).locator(".noUi-handle").focus()
    page.keyboard.press("ArrowRight")
    expect(notebook.output(2)).to_contain_text("moved")
    expect(notebook.output(1)).to_contain_text("twice is 8")


def test_a_slider_draws_anew_into_the_output_of_its_widget(lab: Lab, page: Page) -> None:
    lab.write("interact.ipynb", INTERACT)
    notebook = Notebook(page, lab, "interact.ipynb")
    notebook.expect_state("Idle")
    notebook.run(0)
    widget = notebook.output(0).locator(".widget-interact")
    expect(widget.locator(".widget-output img")).to_be_visible()
    expect(widget.locator(".widget-output")).to_contain_text("of 3")
    widget.locator(".noUi-handle").focus()
    page.keyboard.press("ArrowRight")
    expect(widget.locator(".widget-output")).to_contain_text("of 4")
    expect(widget.locator(".widget-output img")).to_have_count(1)


def test_an_interrupt_ends_the_cell_and_state_stays(lab: Lab, page: Page) -> None:
    lab.write("interrupt.ipynb", "kept = 5\nprint('running')\nwhile True: pass", "kept + 1")
    notebook = Notebook(page, lab, "interrupt.ipynb")
    notebook.expect_state("Idle")
    notebook.run(0)
    expect(notebook.output(0)).to_contain_text("running")
    notebook.press("interrupt")
    expect(notebook.output(0)).to_contain_text("KeyboardInterrupt")
    notebook.run(1)
    expect(notebook.output(1)).to_contain_text("6")


def test_a_restart_begins_anew_even_out_of_a_cell_that_holds_the_interpreter(lab: Lab, page: Page) -> None:
    lab.write("restart.ipynb", "kept = 5\nprint('running')\nsum(range(10**13))", "'kept' in globals()")
    notebook = Notebook(page, lab, "restart.ipynb")
    notebook.expect_state("Idle")
    notebook.run(0)
    expect(notebook.output(0)).to_contain_text("running")
    notebook.restart()
    notebook.expect_state("Idle")
    notebook.run(1)
    expect(notebook.output(1)).to_contain_text("False")
    notebook.expect_count(1, 1)


def test_a_kernel_whose_page_was_closed_goes_on_and_is_found_again(lab: Lab, page: Page) -> None:
    """What a cell says without a page is lost to JupyterLab, but not what it does; who asks for it is shown it."""
    os.mkfifo(lab.folder / "pipe")
    going = "print('waits')\nheard = open('pipe').read()\nprint(heard, file=open('pipe', 'w'))\nprint('unseen')"
    lab.write("closed.ipynb", going, "heard", "%capsule output 1")
    notebook = Notebook(page, lab, "closed.ipynb")
    notebook.expect_state("Idle")
    notebook.run(0)
    expect(notebook.output(0)).to_contain_text("waits")
    page.close()
    (lab.folder / "pipe").write_text("said while nobody looked")
    assert (lab.folder / "pipe").read_text() == "said while nobody looked\n"
    again = Notebook(page.context.new_page(), lab, "closed.ipynb")
    again.expect_state("Idle")
    again.run(1)
    expect(again.output(1)).to_contain_text("said while nobody looked")
    again.expect_count(1, 2)
    again.run(2)
    expect(again.output(2)).to_contain_text("unseen")
