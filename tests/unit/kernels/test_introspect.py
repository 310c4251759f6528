"""Completion, inspection, completeness, history: the answers, in code points, whatever the objects do."""

from __future__ import annotations

from typing import Any

import pytest

from capsule_kernels.introspect import MATCHES
from tests.unit.kernels.alone import alone
from tests.unit.kernels.rig import Session


def ask(session: Session, question: str, /, **body: Any) -> dict[str, Any]:
    return session.engine.answering.answers[question](body)


@alone
def test_completion() -> None:
    session = Session()
    session.value("import os\nclass A:\n    alpha = 1\n    alfa = 2\na = A()\nnaïve_name = 3\ntable = {'key one': 1}")
    found = ask(session, "complete", code="x = a.al + 1", cursor=8)
    assert found["matches"] == ["alfa", "alpha"] or found["matches"] == [".alfa", ".alpha"]
    assert "x = a.al"[found["start"] : found["end"]] in ("al", ".al")
    code = "'😀😀'; naï"
    found = ask(session, "complete", code=code, cursor=len(code))
    assert (found["matches"], found["start"], found["end"]) == (["naïve_name"], 6, 9)
    assert ask(session, "complete", code="table['k", cursor=8)["matches"]
    assert ask(session, "complete", code="zzz_nothing", cursor=11)["matches"] == []
    assert ask(session, "complete", code="", cursor=0)["start"] == 0
    assert len(ask(session, "complete", code="", cursor=0)["matches"]) <= MATCHES
    assert "%timeit" in ask(session, "complete", code="%timei", cursor=6)["matches"]


@pytest.mark.parametrize(
    "head", ["def f():\n    ", "class A:\n    x = 1\n    ", "async def f(a):\n    if a:\n        "]
)
@alone
def test_attributes_are_completed_in_the_body_of_a_function_or_class(head: str) -> None:
    session = Session()
    session.value("class A:\n    alpha = 1\n    alfa = 2\na = A()")
    found = ask(session, "complete", code=f"{head}a.al", cursor=len(head) + 4)
    assert (found["matches"], found["start"], found["end"]) == (["alfa", "alpha"], len(head) + 2, len(head) + 4)
    assert ask(session, "complete", code=f"{head}zzz.al", cursor=len(head) + 6)["matches"] == []
    assert ask(session, "complete", code="%%script cat\nls a.al", cursor=20)["matches"] == []


@alone
def test_completion_is_bounded_and_survives_hostile_objects() -> None:
    session = Session()
    session.value(
        "class Wide:\n    def __dir__(self): return [f'n{i:05}' for i in range(5000)]\nwide = Wide()\n"
        "class Broken:\n    def __dir__(self): raise LookupError\nbroken = Broken()"
    )
    assert len(ask(session, "complete", code="wide.", cursor=5)["matches"]) <= MATCHES
    assert ask(session, "complete", code="broken.", cursor=7)["matches"] == []


@alone
def test_inspection() -> None:
    session = Session()
    session.value("def f(a, b=2):\n    '''What f does.'''\n    return a  # the body")
    found = ask(session, "inspect", code="y = f(1)", cursor=6)
    assert found["found"]
    assert "What f does." in found["data"]["text/plain"]
    assert "the body" not in found["data"]["text/plain"]
    assert "\x1b" not in found["data"]["text/plain"]
    assert "the body" in ask(session, "inspect", code="f", cursor=1, detail=1)["data"]["text/plain"]
    assert ask(session, "inspect", code="nothing_here", cursor=3) == {"found": False, "data": {}, "metadata": {}}
    assert ask(session, "inspect", code="", cursor=0) == {"found": False, "data": {}, "metadata": {}}


@alone
def test_an_inspection_is_text_unless_the_session_wants_html() -> None:
    session = Session()
    assert list(ask(session, "inspect", code="len", cursor=3)["data"]) == ["text/plain"]
    session.value("get_ipython().enable_html_pager = True")
    assert sorted(ask(session, "inspect", code="len", cursor=3)["data"]) == ["text/html", "text/plain"]


@alone
def test_completeness() -> None:
    session = Session()
    assert ask(session, "is_complete", code="x = 1") == {"status": "complete", "indent": ""}
    assert ask(session, "is_complete", code="for i in x:") == {"status": "incomplete", "indent": "    "}
    assert ask(session, "is_complete", code="await f()")["status"] == "complete"
    assert ask(session, "is_complete", code="x = = 1")["status"] == "invalid"
    assert ask(session, "is_complete", code="!ls")["status"] == "complete"


@alone
def test_history() -> None:
    session = Session()
    for code in ("a = 1", "b = 2", "a = 1", "!true", "a"):
        session.value(code)

    def lines(**body: Any) -> list[tuple[int, Any]]:
        return [(line, source) for _, line, source in ask(session, "history", **body)["entries"]]

    assert lines(kind="tail", n=2) == [(4, "!true"), (5, "a")]
    assert lines() == [(1, "a = 1"), (2, "b = 2"), (3, "a = 1"), (4, "!true"), (5, "a")]
    assert lines(kind="tail", n=1, output=True) == [(5, ["a", "1"])]
    assert lines(kind="range", start=2, stop=4) == [(2, "b = 2"), (3, "a = 1")]
    assert lines(kind="range", start=4, stop=5, raw=False) == [(4, "get_ipython().system('true')")]
    assert lines(kind="search", pattern="a*") == [(1, "a = 1"), (3, "a = 1"), (5, "a")]
    assert lines(kind="search", pattern="?*", unique=True) == [(2, "b = 2"), (3, "a = 1"), (4, "!true"), (5, "a")]
    assert lines(kind="search", pattern="*=*", n=1) == [(3, "a = 1")]


@alone
def test_magics_find_the_inputs_of_a_session_without_a_history_file() -> None:
    session = Session()
    for code in ("a = 1", "%time b = 22", "a = 1", "print(3)"):
        session.value(code)
    session.text(0)
    session.value("%history -g 22")
    assert session.text(0) == b"   2: %time b = 22\n   5: %history -g 22\n"
    session.value("%history -u -g a =")
    assert session.text(0) == b"   3: a = 1\n   6: %history -u -g a =\n"
    session.value("%rerun -l 4")
    assert b"print(3)\n" in session.text(0)
    manager = session.python.history_manager
    assert [entry[1:] for entry in manager.get_tail(2)] == [(5, "%history -g 22"), (6, "%history -u -g a =")]
    assert [entry[1:] for entry in manager.get_tail(1, include_latest=True)] == [(7, "%rerun -l 4")]
    assert [entry[1:] for entry in manager.search("*22", raw=False, n=1)] == [
        (5, "get_ipython().run_line_magic('history', '-g 22')")
    ]
    assert [entry[1:] for entry in manager.search("print*", output=True)] == [(4, ("print(3)", None))]


@alone
def test_the_namespace_has_the_users_names_only() -> None:
    session = Session()
    session.value("import os\nx = 5\n_private = 6\ndef f(): ...")
    session.value("x")
    found = ask(session, "namespace_summary")
    assert [entry["name"] for entry in found["entries"]] == ["f", "x"]
    assert found["truncated"] == 0
