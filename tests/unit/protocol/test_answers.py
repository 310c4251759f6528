"""What questions may allow, and which answers they take."""

from __future__ import annotations

from typing import Any

import pytest

from capsule_protocol.answers import ANSWER_BYTES, DEPTH, MAX_CHOICES, QUESTION_BYTES, Terms
from capsule_protocol.errors import ArgumentError, RemoteProtocolError, SessionError
from capsule_protocol.messages import parse
from capsule_protocol.messages.execution import InputRequest


def nested(depth: int) -> Any:
    value: Any = 0
    for _ in range(depth):
        value = [value]
    return value


def refusal(terms: Terms, text: str) -> SessionError:
    with pytest.raises(SessionError) as caught:
        terms.read(text)
    assert caught.value.code == "answer_refused"
    assert "allowed" in caught.value.details
    return caught.value


@pytest.mark.parametrize(
    "terms",
    [
        Terms(),
        Terms(["yes"]),
        Terms([None, False, 1.5, {"a": [1]}]),
        Terms(list(range(MAX_CHOICES))),
        Terms(schema={}),
        Terms(schema={"type": "object"}),
        Terms([nested(DEPTH - 1)]),
    ],
)
def test_what_a_question_may_allow(terms: Terms) -> None:
    terms.check()


@pytest.mark.parametrize(
    ("terms", "argument"),
    [
        (Terms([]), "choices"),
        (Terms(list(range(MAX_CHOICES + 1))), "choices"),
        (Terms(["x" * QUESTION_BYTES]), "choices"),
        (Terms([float("nan")]), "choices"),
        (Terms([2**63]), "choices"),
        (Terms([b"bytes"]), "choices"),
        (Terms(["\ud800"]), "choices"),
        (Terms([nested(DEPTH)]), "choices"),
        (Terms(schema={"title": "x" * QUESTION_BYTES}), "schema"),
        (Terms(schema={"default": nested(DEPTH)}), "schema"),
        (Terms(schema={"pattern": "a*"}), "schema"),
        (Terms([1], {}), "schema"),
    ],
)
def test_what_it_may_not(terms: Terms, argument: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        terms.check()
    assert caught.value.argument == argument
    request = InputRequest(request="i1").envelope()
    body = {"choices": terms.choices, "json_schema": terms.schema}
    with pytest.raises(RemoteProtocolError) as refused:
        parse(request._replace(body=request.body | body))
    assert refused.value.code == "invalid_message"


def test_a_huge_question_is_refused_before_all_of_it_was_looked_at() -> None:
    value: Any = [0] * 10_000
    for _ in range(10):
        value = [value] * 10  # shared, so that only whoever looks at all of it takes for ever
    for terms in (Terms([value]), Terms(schema={"default": value})):
        with pytest.raises(ArgumentError):
            terms.check()


@pytest.mark.parametrize("timeout", [0, -1, float("inf"), float("nan"), 1e10])
def test_a_question_is_open_for_a_time_that_can_be_counted(timeout: float) -> None:
    request = InputRequest(request="i1").envelope()
    with pytest.raises(RemoteProtocolError):
        parse(request._replace(body=request.body | {"timeout": timeout}))


def test_a_choice_is_equal_and_nothing_else() -> None:
    terms = Terms([1, True, "1", None, {"a": 1, "b": [2]}])
    for text in ("1", "1.0", "true", '"1"', "null", ' {"b": [2], "a": 1.0} '):
        terms.read(text)
    for text in ("0", "false", '"true"', "[1]", '{"a": 1}', "yes", ""):
        refusal(terms, text)


def test_a_refusal_says_what_is_allowed() -> None:
    error = refusal(Terms(["yes", "no"]), '"maybe"')
    assert error.message == 'the answer is "maybe"; allowed: "yes", "no"'
    error = refusal(Terms(schema={"properties": {"port": {"maximum": 65_535}}}), '{"port": 70000}')
    assert error.message == "the answer, at $.port, is 70000; allowed: at most 65535"
    assert error.details == {"allowed": "at most 65535", "at": "$.port"}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yes",
        "{'a': 1}",
        "NaN",
        "-Infinity",
        "1e999",
        "[1e999]",
        str(2**63),
        f'{{"a": [{-(2**63) - 1}]}}',
        "9" * 5_000,
        '"\\ud800"',
        '{"\\ud800": 1}',
        "[" * 10_000,
        "[" * (DEPTH + 1) + "]" * (DEPTH + 1),
        '"' + "x" * ANSWER_BYTES + '"',
    ],
    ids=lambda text: text[:20],
)
def test_what_nobody_can_carry_or_read_is_no_answer(text: str) -> None:
    refusal(Terms(schema={}), text)


def test_the_bounds_themselves_are_allowed() -> None:
    terms = Terms(schema={})
    for text in (str(2**63 - 1), str(-(2**63)), "[" * DEPTH + "]" * DEPTH, '"' + "x" * (ANSWER_BYTES - 2) + '"'):
        terms.read(text)


@pytest.mark.parametrize(
    ("terms", "line", "meant"),
    [
        (Terms(["yes", "no"]), "yes", "yes"),
        (Terms(["yes", "no"]), '"yes"', "yes"),
        (Terms([1, 2]), "1", 1),
        (Terms(["1", "2"]), "1", "1"),
        (Terms(["1", 1]), "1", 1),
        (Terms(["1", 1]), '"1"', "1"),
        (Terms(schema={"type": "string"}), "42", "42"),
        (Terms(schema={"type": "string"}), 'say "hi"', 'say "hi"'),
        (Terms(schema={"type": "string"}), "", ""),
        (Terms(schema={"type": "boolean"}), "true", True),
        (Terms(schema={"type": "object"}), '{"a": 1}', {"a": 1}),
        (Terms(schema={}), "NaN", "NaN"),
        (Terms(schema={}), "plain words", "plain words"),
    ],
)
def test_people_need_no_quotes(terms: Terms, line: str, meant: Any) -> None:
    found = terms.understand(line)
    assert (found, type(found)) == (meant, type(meant))


@pytest.mark.parametrize(("line", "shown"), [("abc", '"abc"'), ("1.5", "1.5"), ('"1"', '"1"')])
def test_what_people_write_is_refused_as_they_meant_it(line: str, shown: str) -> None:
    with pytest.raises(SessionError) as caught:
        Terms(schema={"type": "integer"}).understand(line)
    assert caught.value.message == f"the answer is {shown}; allowed: integer"


def test_a_value_is_written_as_json() -> None:
    assert Terms(schema={}).write({"a": [1, None, "é"]}) == '{"a":[1,null,"é"]}'
    for value in (object(), float("nan"), {1, 2}):
        with pytest.raises(SessionError) as caught:
            Terms(schema={}).write(value)
        assert caught.value.code == "answer_refused"
