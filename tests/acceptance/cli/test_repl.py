"""`capsule repl`: a console on a session, on a pipe and on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.acceptance.cli.support import Running, Terminal, capsule

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CELLS = """x = 20
x + 1
def double(n):
    return n * 2

double(x)

1/0
a b
import asyncio
await asyncio.sleep(0, 'slept')
print(_)
name = input('? ')
Ada
name
import os; _ = os.write(1, b'raw')
for i in range(2):
    print(i)"""


def test_cells_from_a_pipe() -> None:
    done = capsule("repl", stdin=CELLS.encode())
    assert done.stdout.decode() == "21\n40\n'slept'\nslept\n? \n'Ada'\nraw\n0\n1\n"
    text = done.stderr.decode()
    assert text.index("ZeroDivisionError") < text.index("SyntaxError")
    assert done.returncode == 0


@pytest.mark.parametrize(("leave", "code"), [("exit\n", 0), ("quit()\n", 0), ("import sys; sys.exit(4)\n", 4)])
def test_leaving_from_a_pipe(leave: str, code: int) -> None:
    done = capsule("repl", stdin=f"print('in')\n{leave}print('not reached')\n".encode())
    assert (done.returncode, done.stdout, done.stderr) == (code, b"in\n", b"")


def test_a_dead_worker_is_replaced_and_told() -> None:
    done = capsule("repl", stdin=b"x = 1\nimport os; os._exit(1)\nprint('x' in globals())\n")
    assert (done.returncode, done.stdout) == (0, b"False\n")
    assert b"execution_crashed" in done.stderr
    assert done.stderr.endswith(b"capsule: a new worker runs; the state of the old one is gone\n")


def test_output_of_what_a_cell_left_behind() -> None:
    with Running("repl") as running:
        running.type(b"import threading; gate = threading.Event()\n")
        running.type(b"threading.Thread(target=lambda: (gate.wait(), print('late')), daemon=True).start()\n")
        running.type(b"print('now'); gate.set()\n")
        running.until(b"late\n")
        running.type(b"exit\n")
        assert running.end()[0] == 0


def test_the_session_has_the_options(tmp_path: Path) -> None:
    cells = b"import os, sys\nprint(os.getcwd(), os.environ['A'], sys.argv, sys.path[0] == '')\n"
    done = capsule("repl", "--cwd", tmp_path, "--env", "A=b", stdin=cells)
    assert done.stdout.decode() == f"{tmp_path} b [''] True\n"
    assert capsule("repl", "--environment", "nope").returncode == 2


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    """A console on a terminal, at its first prompt."""
    with Terminal("repl", XDG_STATE_HOME=str(tmp_path)) as terminal:
        terminal.until(">>> ")
        yield terminal


def test_values_and_tracebacks_are_rich_on_a_terminal(terminal: Terminal) -> None:
    terminal.type("{'a': 1}\r")
    terminal.until("\n{'a': 1}")
    terminal.until(">>> ")
    terminal.type("1/0\r")
    terminal.until("ZeroDivisionError: division by zero")
    terminal.until(">>> ")
    assert "\x1b[1;31mZeroDivisionError: division by zero" in terminal.raw
    terminal.type("\x04")
    assert terminal.end()[0] == 0


def test_several_lines_until_they_are_complete(terminal: Terminal, tmp_path: Path) -> None:
    # All at once, as from a quick typist: keys that come while the session is asked must wait for the answer.
    terminal.type("def f():\rreturn 'from f'\r\rf()\r")
    terminal.until("\n'from f'")
    terminal.until(">>> ")
    terminal.type("exit\r")
    assert terminal.end()[0] == 0
    assert "+def f():\n+    return 'from f'" in (tmp_path / "capsule" / "history").read_text()


def test_completion_asks_the_session(terminal: Terminal) -> None:
    terminal.type("unusual_name = print('rea' + 'dy') or 'completed'\r")
    terminal.until("\nready")
    terminal.until(">>> ")
    terminal.type("unus\t")
    terminal.until("ual_name")
    terminal.type(".upper()\r")
    terminal.until("'COMPLETED'")


def test_ctrl_c_clears_the_line_and_interrupts_a_cell(terminal: Terminal) -> None:
    terminal.type("half a li")
    terminal.until("half a li")
    terminal.type("\x03")
    terminal.until(">>> ")
    # What only the running cell prints says that the terminal is the cell's, where Ctrl-C is a signal.
    terminal.type("import time; print('be' + 'gun'); time.sleep(1000)\r")
    terminal.until("begun")
    terminal.type("\x03")
    terminal.until("KeyboardInterrupt")
    terminal.until(">>> ")
    terminal.type("print('st' + 'ill here')\r")
    terminal.until("still here")


def test_input_on_the_terminal(terminal: Terminal) -> None:
    terminal.type("name = input('your' + ' name? ')\r")
    terminal.until("your name? ")
    terminal.type("Ada\r")
    terminal.until(">>> ")
    terminal.type("name\r")
    terminal.until("\n'Ada'")


def test_history_is_kept_from_one_console_to_the_next(tmp_path: Path) -> None:
    with Terminal("repl", XDG_STATE_HOME=str(tmp_path)) as terminal:
        terminal.until(">>> ")
        terminal.type("print('re' + 'membered')\r")
        terminal.until("\nremembered")
        terminal.until(">>> ")
        terminal.type("\x04")
        terminal.end()
    with Terminal("repl", XDG_STATE_HOME=str(tmp_path)) as terminal:
        terminal.until(">>> ")
        terminal.type("\x1b[A\r")
        terminal.until("\nremembered")
