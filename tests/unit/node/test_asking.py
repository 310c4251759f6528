"""Questions where no promises are kept: the execution itself looks whether an answer is allowed, and at the time."""

from __future__ import annotations

import asyncio

import pytest

from capsule.config import SessionOptions
from capsule.events import InputRequest
from capsule.node.asking import Answer, Question
from capsule.node.execution import ExecuteRequest, Execution
from capsule_protocol.errors import ArgumentError, SessionError
from tests.unit.node.hosts import Host

pytestmark = pytest.mark.anyio

LONG = 60.0


class Asking(Host):
    """The session of one execution; remembers what its worker would hear."""

    def __init__(self, input_timeout: float | None = None) -> None:
        self.options = SessionOptions(input_timeout=input_timeout)
        request = ExecuteRequest("capsule_ask()", allow_input=True)
        self.execution = Execution("x_1", self, request, asyncio.get_running_loop())
        self.heard: asyncio.Queue[tuple[str, Answer]] = asyncio.Queue()

    def send_input(self, request: str, answer: Answer) -> None:
        self.heard.put_nowait((request, answer))

    def ask(self, question: Question) -> InputRequest:
        self.execution.ask_input(question)
        event = self.execution.take()
        assert isinstance(event, InputRequest)
        return event


async def test_whoever_is_asked_knows_what_is_allowed() -> None:
    asking = Asking(input_timeout=5)
    event = asking.ask(Question("m_1", "? ", choices=[1, 2], timeout=9))
    assert (event.choices, event.schema, event.timeout) == ([1, 2], None, 5)


async def test_an_answer_that_is_not_allowed_is_refused_and_the_question_stays_open() -> None:
    asking = Asking()
    asking.ask(Question("m_1", "? ", schema={"type": "integer"}))
    with pytest.raises(SessionError) as caught:
        asking.execution.reply_input("m_1", "1.5")
    assert caught.value.code == "answer_refused"
    assert asking.heard.empty()
    asking.execution.reply_input("m_1", "1")
    assert asking.heard.get_nowait() == ("m_1", Answer("1"))
    with pytest.raises(ArgumentError):
        asking.execution.reply_input("m_1", "1.5")  # nobody asks any more


async def test_no_answer_is_always_allowed() -> None:
    asking = Asking()
    asking.ask(Question("m_1", "? ", schema={"type": "integer"}))
    asking.execution.reply_input("m_1", None, "eof")
    assert asking.heard.get_nowait() == ("m_1", Answer(None, "eof"))


@pytest.mark.parametrize(("limit", "asked"), [(0.01, None), (None, 0.01), (LONG, 0.01), (0.01, LONG)])
async def test_without_an_answer_the_time_of_session_and_code_ends_it(limit: float | None, asked: float | None) -> None:
    asking = Asking(limit)
    asking.ask(Question("m_1", "? ", choices=[1], timeout=asked))
    async with asyncio.timeout(LONG / 2):
        assert await asking.heard.get() == ("m_1", Answer(None, "timeout"))
