"""capsule_ask: what is asked, what comes of the answers, and what cannot be asked."""

from __future__ import annotations

import pytest

from tests.unit.kernels.alone import alone
from tests.unit.kernels.rig import Session
from tests.unit.kernels.test_stdin import Client


@alone
def test_an_answer_has_its_type() -> None:
    session = Session()
    with Client(session, ['"yes"', "3", '{"a": [1.5, null]}', "a line"]) as client:
        code = (
            "(capsule_ask('Deploy? ', choices=['yes', 'no']), capsule_ask('n? ', schema={'type': 'integer'}),"
            " capsule_ask(schema={}), capsule_ask('Name? ', timeout=5))"
        )
        assert session.value(code) == "('yes', 3, {'a': [1.5, None]}, 'a line')"
    assert client.asked == [("Deploy? ", False), ("n? ", False), ("", False), ("Name? ", False)]
    assert [body["choices"] for body in client.bodies] == [["yes", "no"], None, None, None]
    assert [body["json_schema"] for body in client.bodies] == [None, {"type": "integer"}, {}, None]
    assert [body["timeout"] for body in client.bodies] == [None, None, None, 5.0]


@alone
def test_a_choice_comes_back_as_the_object_that_was_offered() -> None:
    session = Session()
    with Client(session, ['"red"', "[1, 2]", "2.0"]):
        code = (
            "import enum\nclass Colour(str, enum.Enum): RED = 'red'\n"
            "(capsule_ask(choices=list(Colour)) is Colour.RED, capsule_ask(choices=((1, 2), 3)),"
            " capsule_ask(choices=range(3)))"
        )
        assert session.value(code) == "(True, (1, 2), 2)"


@pytest.mark.parametrize(
    ("error", "name", "code"),
    [
        ("eof", "EOFError", "execution_error"),
        ("timeout", "InputTimeoutError", "input_timeout"),
        ("canceled", "InputCanceledError", "input_canceled"),
    ],
)
@alone
def test_no_answer_has_three_errors(error: str, name: str, code: str) -> None:
    session = Session()
    with Client(session, [], error=error):
        body = session.error("capsule_ask(choices=[1])")
    assert (body["name"], body["code"]) == (name, code)


@alone
def test_where_nobody_can_answer_it_is_the_end_at_once() -> None:
    session = Session()
    body = session.error("capsule_ask('? ', choices=[1])")
    assert (body["name"], body["code"]) == ("EOFError", "no_input_client")
    assert not session.shell.poll(0)


WRONG = {
    "choices=[]": "choices: are 0; allowed: 1 to 256",
    "choices='yes'": "choices: is str; allowed: a list, or another sequence but text",
    "choices={1}": "choices: is set; allowed: a list, or another sequence but text",
    "choices=[object()]": "choices: cannot be said in JSON: Object of type object is not JSON serializable",
    "choices=[2 ** 64]": "choices: cannot be said in JSON: an integer has more than 64 bits",
    "choices=[float('nan')]": "choices: cannot be said in JSON: Out of range float values are not JSON compliant",
    "choices=['x' * 20_000]": "choices: cannot be asked: too large; allowed: at most 16384 bytes of JSON",
    "choices=[1], schema={}": "schema: choices are given, too; allowed: one of the two",
    "schema=[]": "schema: is list; allowed: a dict: a JSON Schema",
    "schema={'pattern': '(a*)*b'}": "schema: $.pattern is no keyword that can be checked here",
    "schema={'$ref': 'https://example.org'}": "schema: $.$ref has a value that JSON Schema does not allow",
    "schema={'type': 'int'}": "schema: $.type has a value that JSON Schema does not allow",
    "timeout=0": "timeout: is 0; allowed: seconds: more than 0, at most 31622400",
    "timeout=float('nan')": "timeout: is nan; allowed: seconds",
    "timeout=True": "timeout: is True; allowed: seconds",
    "timeout='1'": "timeout: is '1'; allowed: seconds",
}


@alone
def test_what_cannot_be_asked_is_an_error_of_the_call() -> None:
    session = Session()
    session.engine.stdin.allowed = True
    for arguments, message in WRONG.items():
        body = session.error(f"capsule_ask('? ', {arguments})")
        assert body["name"] == "ArgumentError", arguments
        assert body["message"].startswith(message), (arguments, body["message"])
        assert "capsule_protocol" not in "".join(body["traceback"])
    assert session.value("try: capsule_ask(choices=[])\nexcept ValueError: seen = True\nseen") == "True"
    assert not session.shell.poll(0)


@alone
def test_the_name_comes_back_when_it_is_deleted() -> None:
    session = Session()
    session.run("del capsule_ask")
    assert session.value("callable(capsule_ask)") == "True"
