"""A question is open until its answer comes, whether or not its asker still waits."""

from __future__ import annotations

import asyncio

import pytest

from capsule.node.questions import MAX_OPEN, Questions
from capsule_protocol.envelope import Envelope
from capsule_protocol.errors import CapsuleError, LocalProtocolError, SessionError, WorkerLost

pytestmark = pytest.mark.anyio


async def forsake(questions: Questions) -> str:
    """Ask, and leave before the answer; answers the question's id."""
    sent: list[Envelope] = []
    asking = asyncio.ensure_future(questions.ask(sent.append, "s_1", "complete", {}, None))
    while not sent:
        await asyncio.sleep(0)
    asking.cancel()
    await asyncio.wait([asking])
    return sent[0].id


async def test_a_question_whose_asker_left_is_open_until_it_is_answered() -> None:
    questions = Questions(asyncio.get_running_loop())
    number = await forsake(questions)
    assert len(questions) == 1
    questions.take(number, Envelope("complete_reply", {"reply_to": number}))
    assert len(questions) == 0


async def test_nothing_is_open_once_the_worker_has_ended() -> None:
    questions = Questions(asyncio.get_running_loop())
    await forsake(questions)
    asking = asyncio.ensure_future(questions.ask(lambda _: None, "s_1", "complete", {}, None))
    leaving = asyncio.ensure_future(questions.ask(lambda _: None, "s_1", "complete", {}, None))
    while len(questions) < 3:
        await asyncio.sleep(0)
    leaving.cancel()
    questions.fail(WorkerLost("worker_lost", "the worker ended"))
    await asyncio.wait([asking, leaving])
    assert isinstance(asking.exception(), CapsuleError)
    assert len(questions) == 0


async def test_a_question_that_could_not_be_sent_is_not_open() -> None:
    def refuse(_: Envelope) -> None:
        raise LocalProtocolError("message_too_large", "too large")

    questions = Questions(asyncio.get_running_loop())
    with pytest.raises(LocalProtocolError):
        await questions.ask(refuse, "s_1", "complete", {}, None)
    assert len(questions) == 0


async def test_the_first_question_is_the_oldest_that_is_open_and_before_the_code() -> None:
    questions = Questions(asyncio.get_running_loop())
    sent: list[str] = []

    async def ask(behind: int | None) -> asyncio.Task[object]:
        before = len(sent)
        body: dict[str, object] = {}
        note = lambda envelope: sent.append(envelope.id)  # noqa: E731 - reads as what it does
        asking = asyncio.ensure_future(questions.ask(note, "s_1", "complete", body, None, behind))
        while len(sent) == before:
            await asyncio.sleep(0)
        return asking

    assert questions.first(None) is None
    asking = [await ask(behind) for behind in (None, 3, 4)]
    assert questions.first(None) == questions.first(4) == sent[1]
    assert questions.first(3) is None
    asking[1].cancel()
    await asyncio.wait([asking[1]])
    assert questions.first(None) == sent[1]
    questions.take(sent[1], Envelope("complete_reply", {"reply_to": sent[1]}))
    assert questions.first(None) == questions.first(5) == sent[2]
    assert questions.first(4) is None
    questions.fail(WorkerLost("worker_lost", "the worker ended"))
    await asyncio.wait(asking)
    assert [type(one.exception()) for one in (asking[0], asking[2])] == [WorkerLost] * 2
    assert questions.first(None) is None


async def test_a_question_too_many_is_refused_and_the_others_stay() -> None:
    questions = Questions(asyncio.get_running_loop())
    sent: list[Envelope] = []
    asking = [asyncio.ensure_future(questions.ask(sent.append, "s_1", "complete", {}, None)) for _ in range(MAX_OPEN)]
    while len(sent) < MAX_OPEN:
        await asyncio.sleep(0)
    with pytest.raises(SessionError) as caught:
        await questions.ask(sent.append, "s_1", "complete", {}, None)
    assert caught.value.code == "queue_full"
    for envelope in sent:
        questions.take(envelope.id, Envelope("complete_reply", {"reply_to": envelope.id}))
    assert len(await asyncio.gather(*asking)) == MAX_OPEN
    assert len(questions) == 0
