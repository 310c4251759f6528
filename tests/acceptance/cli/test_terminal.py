"""`capsule run` on a terminal: colours where the user wants them, questions, Ctrl-C."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.acceptance.cli.support import Terminal

EXAMPLES = Path(__file__).parents[3] / "docs" / "examples"


def test_displays_and_tracebacks_have_colours() -> None:
    code = "from IPython.display import Markdown\ndisplay(Markdown('**bold**'), {'a': 1})\nprint('plain', end='')\n1/0"
    with Terminal("run", "-c", code) as terminal:
        exit_code, shown = terminal.end()
    assert exit_code == 1
    assert "\x1b[1mbold\x1b[0m" in terminal.raw
    assert "\x1b[32m'a'\x1b[0m" in terminal.raw
    assert "\x1b[1;31mZeroDivisionError: division by zero\x1b[0m" in terminal.raw
    assert "{'a': 1}\nplain\n----" in shown  # the traceback begins a line of its own


@pytest.mark.parametrize("wish", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_no_colours_for_who_wants_none(wish: dict[str, str]) -> None:
    with Terminal("run", "-c", "display({'a': 1})\n1/0", **wish) as terminal:
        assert terminal.end()[0] == 1
    assert "\x1b[3" not in terminal.raw
    assert ";3" not in terminal.raw


def test_what_the_code_writes_stays_as_it_is() -> None:
    with Terminal("run", "-c", "print('[bold]a[/bold] :smile: \\x1b[35mb\\x1b[0m')") as terminal:
        terminal.end()
    assert terminal.raw == "[bold]a[/bold] :smile: \x1b[35mb\x1b[0m\r\n"


def test_a_notebook_shows_its_text_and_its_cells() -> None:
    with Terminal("run", EXAMPLES / "tour.ipynb") as terminal:
        terminal.until("A tour of Capsule")
        terminal.until("squares = [number**2 for number in range(1, 6)]")
        terminal.until("[1, 4, 9, 16, 25]")
        terminal.until("'tea is ready'")
        terminal.until("ZeroDivisionError")
        assert terminal.end()[0] == 0


def test_questions_are_answered_on_the_terminal() -> None:
    code = "import getpass\nprint('Hello', input('name? '), len(getpass.getpass('secret? ')))"
    with Terminal("run", "-c", code) as terminal:
        terminal.until("name? ")
        terminal.type("Ada\r")
        terminal.until("secret? ")
        terminal.type("magic\r")
        exit_code, shown = terminal.end()
    assert exit_code == 0
    assert "Hello Ada 5\n" in shown
    assert "magic" not in terminal.raw


def test_a_question_shows_what_is_allowed_and_is_asked_again_until_it_is_that() -> None:
    code = "print('Heard', [capsule_ask('Deploy?', choices=['yes', 'no']), capsule_ask(schema={'type': 'integer'})])"
    with Terminal("run", "-c", code) as terminal:
        terminal.until("Deploy? (yes, no) ")
        terminal.type("maybe\r")
        terminal.until('the answer is "maybe"; allowed: "yes", "no"')
        terminal.until("Deploy? (yes, no) ")
        terminal.type("yes\r")
        terminal.until('({"type": "integer"}) ')
        terminal.type("three\r")
        terminal.until("allowed: integer")
        terminal.until('({"type": "integer"}) ')
        terminal.type("3\r")
        exit_code, shown = terminal.end()
    assert exit_code == 0
    assert "Heard ['yes', 3]\n" in shown


def test_ctrl_d_ends_the_input_of_one_question() -> None:
    code = "try: input('a? ')\nexcept EOFError: print('end', input('b? '))"
    with Terminal("run", "-c", code) as terminal:
        terminal.until("a? ")
        terminal.type("\x04")
        terminal.until("b? ")
        terminal.type("again\r")
        exit_code, shown = terminal.end()
    assert exit_code == 0
    assert shown.endswith("end again\n")


def test_ctrl_c_on_the_terminal() -> None:
    with Terminal("run", "-c", "try:\n  print('begun')\n  while True: pass\nfinally: print('cleaned up')") as terminal:
        terminal.until("begun")
        terminal.type("\x03")
        exit_code, shown = terminal.end()
    assert exit_code == 130
    assert "cleaned up\n" in shown
    assert "KeyboardInterrupt" in shown
