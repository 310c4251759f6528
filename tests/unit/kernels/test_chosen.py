"""Errors shown as the session has chosen: the verdict has what its clients need, and no second traceback."""

from __future__ import annotations

import pytest

from tests.unit.kernels.alone import alone
from tests.unit.kernels.rig import Session

HANDLER = """
def handle(shell, kind, error, frames, tb_offset=None):
    print('handled', kind.__name__, frames.tb_frame.f_code.co_name, frames.tb_lineno)
get_ipython().set_custom_exc((ZeroDivisionError,), handle)
"""
FUNCTION = """
import sys
def show(*arguments, **options):
    kind, error, frames = sys.exc_info()
    print('handled', kind.__name__, frames.tb_frame.f_code.co_name, frames.tb_lineno)
get_ipython().showtraceback = show
"""


@pytest.mark.parametrize("code", ["x = 1\n1/0", "import asyncio\nawait asyncio.sleep(0) or 1/0"])
@pytest.mark.parametrize("choice", [HANDLER, FUNCTION])
@alone
def test_what_the_session_has_chosen_shows_the_error_with_its_own_frames(choice: str, code: str) -> None:
    session = Session()
    session.value(choice)
    body = session.error(code)
    assert session.text(0) == b"handled ZeroDivisionError <module> 2\n"
    assert (body["name"], body["message"]) == ("ZeroDivisionError", "division by zero")
    assert body["traceback"] == ["ZeroDivisionError: division by zero"]
    session.value("get_ipython().set_custom_exc((), None)\nvars(get_ipython()).pop('showtraceback', None)")
    assert "----> 2" in "\n".join(session.error(code)["traceback"])


@alone
def test_a_handler_of_other_errors_is_not_asked() -> None:
    session = Session()
    session.value(HANDLER)
    for code, name in (("{}[1]", "KeyError"), ("raise SystemExit", "SystemExit"), ("x = = 1", "SyntaxError")):
        body = session.error(code)
        assert body["name"] == name
        assert len(body["traceback"]) > 1
    assert session.text(0) == b""


@alone
def test_rich_shows_errors_where_it_is_installed() -> None:
    pytest.importorskip("rich")
    session = Session()
    session.value("import rich.traceback\n_ = rich.traceback.install()")
    for code, last in (("1/0", "ZeroDivisionError: division by zero"), ("x = = 1", "SyntaxError: invalid syntax")):
        body = session.error(code)
        assert len(body["traceback"]) == 1
        shown = session.message(session.shell).body["data"]
        assert last.split(":")[0] in shown["text/plain"]


@alone
def test_what_fails_to_show_an_error_hides_nothing() -> None:
    session = Session()
    for broken in ("raise ValueError('broken')", "raise SystemExit", "1()"):
        session.value(f"def show(*arguments, **options): {broken}\nget_ipython().showtraceback = show")
        body = session.error("{}['missing']")
        assert (body["name"], body["code"]) == ("KeyError", "execution_error")
        assert "----> 1 {}['missing']" in "\n".join(body["traceback"])


@alone
def test_the_debugger_that_was_asked_for_looks_at_the_error_and_ends_where_nobody_answers() -> None:
    session = Session()
    session.run("%pdb on")
    session.text(0)
    body = session.error("def f(inner):\n    1/0\nf(1)")
    assert body["name"] == "ZeroDivisionError"
    assert b">(2)f(" in session.text(0)
    assert session.text(1).count(b"ZeroDivisionError: division by zero") == 1
    session.run("%pdb off")
    assert "----> 2     1/0" in "\n".join(session.error("f(1)")["traceback"])
