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


SHOWN = [
    "get_ipython().run_cell('1/0');",
    "%%capture kept\n1/0",
    "%tb",
    "with open('/tmp/%d.py' % os.getpid(), 'w') as file: _ = file.write('1/0')\n%run $file.name",
]
BROKEN = [
    "class Broken:\n    def __repr__(self): 1/0\nBroken()",
    "class Broken:\n    def _repr_html_(self): 1/0\nBroken()",
]


@alone
def test_an_error_that_is_no_verdict_is_a_display_for_who_takes_payloads_and_else_on_stderr() -> None:
    session = Session()
    session.value("import os")
    for code in SHOWN:
        session.value(code, payloads=True)
        data = session.message(session.shell).body["data"]
        error = data["application/vnd.jupyter.error"]
        assert (error["ename"], error["evalue"]) == ("ZeroDivisionError", "division by zero")
        assert error["traceback"][-1] == "ZeroDivisionError: division by zero"
        assert data["text/plain"] == "\n".join(error["traceback"])
        assert session.text(1) == b"", code
        assert not session.shell.poll(0)
        session.value(code)
        assert session.text(1).endswith(b"ZeroDivisionError: division by zero\n"), code
    session.value("os.remove(file.name)")


@alone
def test_a_value_that_cannot_be_shown_fails_the_cell_of_who_takes_payloads_and_is_else_told_of_on_stderr() -> None:
    session = Session()
    for code in BROKEN:
        body = session.error(code, payloads=True)
        assert (body["name"], body["shown"]) == ("ZeroDivisionError", True)
        shown = [session.message(session.shell).body for _ in range(2 if "html" in code else 1)]
        assert shown[0]["data"]["application/vnd.jupyter.error"]["traceback"] == body["traceback"]
        assert [one["execution_count"] for one in shown[1:]] == [body["execution_count"]] * (len(shown) - 1)
        assert session.text(1) == b""
        session.value(code)
        assert session.text(1).endswith(b"ZeroDivisionError: division by zero\n"), code


@alone
def test_an_error_that_is_shown_is_bounded_and_may_be_broken() -> None:
    session = Session()
    session.value("class Broken(Exception):\n    def __str__(self): raise ValueError")
    session.value("def nested(code): get_ipython().run_cell(code)")
    session.value("nested('raise Broken')", payloads=True)
    assert session.message(session.shell).body["data"]["application/vnd.jupyter.error"]["ename"] == "Broken"
    session.value("nested('raise ValueError(\"x\" * 1_000_000)')", payloads=True)
    error = session.message(session.shell).body["data"]["application/vnd.jupyter.error"]
    assert len(error["evalue"]) < 70_000
    assert all(len(part) < 70_000 for part in error["traceback"])
