"""input(), getpass and sys.stdin: what is asked, what is answered, and what happens where nobody answers."""

from __future__ import annotations

import threading
from typing import Any, Self

import pytest

from capsule_protocol.envelope import Envelope
from capsule_protocol.marks import MESSAGE
from tests.unit.kernels.alone import alone
from tests.unit.kernels.rig import Session


class Client:
    """Answers the questions that the cells of a session ask, from a list; then it has no more."""

    def __init__(self, session: Session, answers: list[str | None], error: str | None = "eof") -> None:
        self.session = session
        self.asked: list[tuple[str, bool]] = []
        self.bodies: list[dict[str, Any]] = []
        self._answers = answers
        self._error = error
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        session.engine.stdin.allowed = True

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _serve(self) -> None:
        while not self._stop.is_set():
            if not self.session.shell.poll(20):
                continue
            message = self.session.message(self.session.shell)
            if message.type != "input_request":
                continue
            self.asked.append((message.body["prompt"], message.body.get("password", False)))
            self.bodies.append(message.body)
            value = self._answers.pop(0) if self._answers else None
            error = self._error if value is None else None
            body = {"request": message.body["request"], "value": value, "error": error}
            self.session.engine.stdin.answer(message._replace(type="input_reply", body=body))


@pytest.mark.parametrize("call", ["input('x')", "__import__('getpass').getpass()", "next(iter(sys.stdin))"])
@alone
def test_where_nobody_can_answer_the_input_is_at_its_end(call: str) -> None:
    session = Session()
    body = session.error(f"import sys\n{call}")
    assert body["name"] in ("EOFError", "StopIteration")
    assert not session.shell.poll(0)
    assert session.value("sys.stdin.readline(), sys.stdin.read(), sys.stdin.readlines(), list(sys.stdin)") == (
        "('', '', [], [])"
    )


@alone
def test_a_question_and_its_answer() -> None:
    session = Session()
    with Client(session, ["Ada", "secret", ""]) as client:
        assert session.value("import getpass\ninput('Name? '), getpass.getpass('Password? '), input()") == (
            "('Ada', 'secret', '')"
        )
    assert client.asked == [("Name? ", False), ("Password? ", True), ("", False)]


@alone
def test_what_was_printed_precedes_the_question() -> None:
    session = Session()
    with Client(session, ["1"]):
        session.value("print('before')\ninput()")
    parts = session.parts(0)
    first = next(index for index, part in enumerate(parts) if not isinstance(part, bytes) and part.flags & MESSAGE)
    assert b"before\n" in parts[:first]


@alone
def test_no_more_answers_and_none_in_time() -> None:
    session = Session()
    with Client(session, []):
        assert session.error("input()")["name"] == "EOFError"
    with Client(session, [], error="timeout"):
        body = session.error("input()")
    assert (body["name"], body["code"]) == ("InputTimeoutError", "input_timeout")


READS: dict[str, tuple[str, str]] = {
    "readline": ("sys.stdin.readline()", "'ab\\n'"),
    "a part of a line": (
        "sys.stdin.readline(1), sys.stdin.readline(5), sys.stdin.readline()",
        "('a', 'b\\n', 'cd\\n')",
    ),
    "characters": ("sys.stdin.read(1), sys.stdin.read(3), sys.stdin.read()", "('a', 'b\\nc', 'd\\n')"),
    "nothing": ("sys.stdin.read(0)", "''"),
    "everything": ("sys.stdin.read()", "'ab\\ncd\\n'"),
    "None": ("sys.stdin.read(None)", "'ab\\ncd\\n'"),
    "lines": ("[line for line in sys.stdin]", "['ab\\n', 'cd\\n']"),
    "readlines": ("sys.stdin.readlines()", "['ab\\n', 'cd\\n']"),
}


@alone
def test_each_line_of_the_stream_is_a_question() -> None:
    session = Session()
    for name, (code, expected) in READS.items():
        with Client(session, ["ab", "cd"]):
            assert session.value(f"import sys\n{code}") == expected, name


@alone
def test_the_stream_looks_like_that_of_a_process() -> None:
    session = Session()
    code = "s = sys.stdin\ns.fileno(), s.readable(), s.writable(), s.isatty(), s.closed, s.encoding, s is sys.__stdin__"
    assert session.value(f"import sys\n{code}") == "(0, True, False, False, False, 'utf-8', True)"
    assert session.value("with sys.stdin: pass\nsys.stdin.closed") == "False"


@alone
def test_a_stream_that_the_user_puts_in_its_place_is_read() -> None:
    session = Session()
    code = (
        "import io, sys\nbefore, sys.stdin = sys.stdin, io.StringIO('typed\\n')\ngot = input()\nsys.stdin = before\ngot"
    )
    assert session.value(code) == "'typed'"


@alone
def test_an_answer_to_no_question_is_dropped() -> None:
    session = Session()
    for body in ({}, {"request": "m_unknown", "value": "x"}, {"request": 5}):
        session.engine.stdin.answer(Envelope("input_reply", dict[str, Any](body)))
    assert session.engine.stdin._waiting == {}


@alone
def test_a_fork_asks_nobody() -> None:
    session = Session()
    session.engine.stdin.allowed = True
    code = (
        "import os\npid = os.fork()\nif pid == 0:\n    try:\n        input()\n    except EOFError:\n"
        "        os._exit(7)\n    os._exit(1)\nos.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])"
    )
    assert session.value(code) == "7"
    assert not session.shell.poll(0)


@alone
def test_a_prompt_over_the_limit_is_an_error_and_leaves_no_question() -> None:
    session = Session(message_bytes=100_000)
    session.engine.stdin.allowed = True
    assert session.error("input('x' * 200_000)")["name"] == "LocalProtocolError"
    assert session.engine.stdin._waiting == {}
