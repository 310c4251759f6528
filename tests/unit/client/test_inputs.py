"""What `on_input` is asked, how often, and what becomes of its answers."""

from __future__ import annotations

import asyncio
import gc
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from capsule.client.inputs import TRIES, Answers, reply
from capsule.events import InputRequest
from capsule_protocol.errors import ArgumentError, SessionError

if TYPE_CHECKING:
    from capsule.client.inner import AnyExecution

pytestmark = pytest.mark.anyio

LINE = InputRequest("x_1", 1, "m_1", "? ", password=False)
CHOICE = replace(LINE, choices=["yes", "no"])


class Heard:
    """The execution: remembers the replies."""

    def __init__(self) -> None:
        self.replies: asyncio.Queue[tuple[str | None, str | None]] = asyncio.Queue()

    def reply_input(self, _request: str, value: str | None, error: str | None = None) -> None:
        self.replies.put_nowait((value, error))


def made(on_input: Any) -> tuple[Answers, Heard]:
    heard = Heard()
    inner: AnyExecution = heard  # type: ignore[assignment]  # a part of it is enough here
    return Answers(inner, on_input), heard


async def test_a_line_is_sent_as_it_is_and_a_typed_answer_as_json() -> None:
    for request, answer, sent in (
        (LINE, "1", "1"),
        (CHOICE, "yes", '"yes"'),
        (replace(LINE, schema={}), None, "null"),
        (replace(LINE, schema={}), {"a": (1, 2)}, '{"a":[1,2]}'),
    ):
        answers, heard = made(lambda _, answer=answer: answer)
        answers.ask(request)
        assert heard.replies.get_nowait() == (sent, None)
        assert answers.failure is None


@pytest.mark.parametrize("later", [False, True], ids=["at once", "later"])
async def test_who_answers_what_is_not_allowed_is_asked_again_with_the_reason(later: bool) -> None:
    asked: list[str] = []

    def answer(request: InputRequest) -> Any:
        asked.append(request.refused)
        given = "no" if len(asked) == TRIES else "maybe"
        return _later(given) if later else given

    answers, heard = made(answer)
    answers.ask(CHOICE)
    assert await heard.replies.get() == ('"no"', None)
    assert asked == ["", *['the answer is "maybe"; allowed: "yes", "no"'] * (TRIES - 1)]
    assert answers.failure is None


async def _later(answer: Any) -> Any:
    await asyncio.sleep(0)
    return answer


@pytest.mark.parametrize("later", [False, True], ids=["at once", "later"])
async def test_who_does_so_again_and_again_is_told_and_the_code_gets_no_answer(later: bool) -> None:
    asked = 0

    def answer(_request: InputRequest) -> Any:
        nonlocal asked
        asked += 1
        return _later(3) if later else 3

    answers, heard = made(answer)
    answers.ask(CHOICE)
    assert await heard.replies.get() == (None, "eof")
    assert asked == TRIES
    assert isinstance(answers.failure, SessionError)
    assert answers.failure.code == "answer_refused"


async def test_an_error_of_the_callback_is_no_refusal() -> None:
    asked = 0

    def answer(_request: InputRequest) -> str:
        nonlocal asked
        asked += 1
        raise SessionError("answer_refused", "of another question")

    answers, heard = made(answer)
    answers.ask(CHOICE)
    assert heard.replies.get_nowait() == (None, "eof")
    assert asked == 1


async def test_a_line_that_is_none_is_not_asked_for_again() -> None:
    answers, heard = made(lambda _: 3)
    answers.ask(LINE)
    assert heard.replies.get_nowait() == (None, "eof")
    assert isinstance(answers.failure, ArgumentError)


async def test_a_reply_that_is_not_allowed_is_not_sent() -> None:
    _, heard = made(None)
    inner: AnyExecution = heard  # type: ignore[assignment]  # a part of it is enough here
    with pytest.raises(SessionError) as caught:
        reply(inner, CHOICE, '"maybe"')
    assert caught.value.code == "answer_refused"
    assert heard.replies.empty()
    reply(inner, CHOICE, None)
    assert heard.replies.get_nowait() == (None, "eof")


async def test_a_coroutine_that_has_not_begun_when_nobody_asks_any_more_is_none_that_was_forgotten() -> None:
    """Python warns of one that was never awaited."""
    begun = False

    async def answer(_request: InputRequest) -> str:
        nonlocal begun
        begun = True
        return "late"

    answers, heard = made(answer)
    answers.ask(LINE)
    answers.cancel()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    gc.collect()  # which would tell the warning
    assert not begun
    assert heard.replies.empty()


async def test_what_cannot_be_awaited_here_is_an_error_of_the_callback() -> None:
    other = asyncio.new_event_loop()
    try:
        answers, heard = made(lambda _: other.create_future())
        answers.ask(LINE)
        assert heard.replies.get_nowait() == (None, "eof")
        assert isinstance(answers.failure, ValueError)
    finally:
        other.close()
