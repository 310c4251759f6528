"""Colours are worked out once, and stay what Pygments makes of them."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from pygments.formatters.terminal256 import Terminal256Formatter
from pygments.lexer import RegexLexerMeta

from tests.unit.kernels.alone import alone
from tests.unit.kernels.rig import Session

SHOW = """
import stack_data
from pygments import highlight
from pygments.formatters.terminal256 import Terminal256Formatter, TerminalTrueColorFormatter
from pygments.lexers import PythonLexer
from pygments.token import Name
if {cheap}:
    from capsule_kernels.colours import cheapen
    cheapen()

class Plain(PythonLexer):
    pass

class Own(PythonLexer):
    tokens = {{"root": [(r"[a-z]+", Name.Tag), (r"[^a-z]+", Name)]}}

source = "async def f(x: int) -> str:\\n    return f'{{x}}' + str(await g(1)) # why\\n"
for _ in range(2):
    for style in ("default", "monokai", stack_data.style_with_executing_node("monokai", "bg:#004400")):
        for lexer in (PythonLexer, Plain, Own):
            for formatter in (Terminal256Formatter, TerminalTrueColorFormatter):
                print(highlight(source, lexer(), formatter(style=style)))
                print(highlight(source, lexer(), formatter(style=style, nobold=True)))
"""


def _shown(*, cheap: bool) -> str:
    command = [sys.executable, "-c", SHOW.format(cheap=cheap)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_colours_are_those_of_pygments() -> None:
    shown = _shown(cheap=True)
    assert "\x1b[" in shown
    assert shown == _shown(cheap=False)


@alone
def test_a_traceback_has_nothing_worked_out_that_another_had() -> None:
    session = Session()
    session.python.payloads.begin(wanted=True)
    session.python.colors = "neutral"
    worked: list[str] = []
    for owner, name in ((RegexLexerMeta, "_process_state"), (Terminal256Formatter, "_closest_color")):
        before: Any = getattr(owner, name)

        def count(*arguments: Any, name: str = name, before: Any = before) -> Any:
            worked.append(name)
            return before(*arguments)

        setattr(owner, name, count)
    for _ in range(2):
        worked.clear()
        try:
            raise LookupError
        except LookupError as error:
            lines = session.python.traceback_lines(error)
    assert any("\x1b[" in line for line in lines)
    assert worked == []
