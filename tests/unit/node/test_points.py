"""Points: each is dealt with when all events before it are, and not before."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from capsule.config import SessionOptions
from capsule.node import points as module
from capsule.node.asking import Question
from capsule.node.execution import ExecuteRequest, Execution
from capsule.node.journal import MESSAGE, Journal
from capsule.node.merge import Merge
from capsule.node.points import Points
from capsule.node.survival import Survival

if TYPE_CHECKING:
    from collections.abc import Iterator

    from capsule.node.asking import Answer, OnRefused
    from capsule_protocol.envelope import Envelope

TOKEN = b"\xff" + bytes(range(15))


class Rig:
    """A worker without a process: its journal and merge are real, and what it is told is kept."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.options = SessionOptions()
        self.epoch = 1
        self.serial = 0
        self.merge = Merge(TOKEN, lambda *_: None, lambda _: None)
        self.survival = Survival(loop, Journal.create(), self.merge)
        self.sent: list[Envelope] = []
        self.dealt: list[dict[str, Any]] = []
        self.abandoned = False
        self.points = Points(loop, self)  # type: ignore[arg-type]  # of a worker it uses no more than this

    def deal(self, position: int, state: dict[str, Any]) -> None:
        self.dealt.append(state)
        self.survival.deal(position, state, self.sent.append)

    def number_of(self, _execution: Execution) -> int:
        return 0

    def abandon_journal(self) -> None:
        self.abandoned = True
        self.survival.journal.abandon()

    def begin(self) -> Execution:
        self.serial += 1
        execution = Execution(f"x_{self.serial}", self, ExecuteRequest("1", allow_input=True), self.loop)  # type: ignore[arg-type]
        execution.serial = self.serial
        self.points.begin(execution)
        execution.begin()
        return execution

    def message(self, number: int) -> None:
        self.survival.admit(number)
        self.survival.note(MESSAGE, number)

    def on_started(self, execution: Execution) -> None:
        """As a session has it."""

    @property
    def numbers(self) -> list[dict[int, int]]:
        return [state["numbers"] for state in self.dealt]


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    """Points are made as soon as they can be."""
    monkeypatch.setattr(module, "POINT_BYTES", 0)
    loop = asyncio.new_event_loop()
    rig = Rig(loop)
    yield rig
    rig.points.close()
    rig.survival.close()
    loop.close()


def drain(execution: Execution) -> None:
    while execution.take() is not None:
        pass


def test_nothing_is_dealt_with_before_it_is_confirmed(rig: Rig) -> None:
    execution = rig.begin()
    execution.output(0, b"text")
    drain(execution)
    assert rig.dealt == []
    execution.confirm(1)
    assert rig.dealt == []
    execution.confirm(2)
    assert rig.numbers == [{1: 2}]


def test_what_was_not_taken_is_behind_the_point(rig: Rig) -> None:
    execution = rig.begin()
    execution.output(0, b"first")
    execution.take()
    execution.confirm(1)
    assert rig.dealt == []
    execution.take()
    execution.output(0, b"second")
    execution.confirm(2)
    assert rig.numbers == [{1: 2}]
    drain(execution)
    execution.confirm(3)
    assert rig.numbers == [{1: 2}, {1: 3}]


def test_a_verdict_that_is_not_confirmed_holds_up_the_next_execution(rig: Rig) -> None:
    first = rig.begin()
    drain(first)
    first.finish("ok")
    drain(first)
    second = rig.begin()
    drain(second)
    second.confirm(1)
    assert rig.dealt == []
    first.confirm(2)
    assert rig.numbers[-1] == {2: 1}
    assert [rig.survival.had_ended(serial) for serial in (1, 2, 3)] == [True, False, False]
    second.finish("ok")
    drain(second)
    second.confirm(2)
    assert rig.numbers[-1] == {}
    assert [rig.survival.had_ended(serial) for serial in (1, 2, 3)] == [True, True, False]
    assert (rig.points._taken, rig.points._confirmed, rig.points._running) == ({}, {}, {})


def test_one_that_ends_before_an_earlier_one_has_ended_alone(rig: Rig) -> None:
    """What a subshell runs waits for no other shell."""
    first, second = rig.begin(), rig.begin()
    drain(first)
    first.confirm(1)
    second.finish("ok")
    drain(second)
    second.confirm(2)
    assert rig.numbers[-1] == {1: 1}
    assert [rig.survival.had_ended(serial) for serial in (1, 2, 3)] == [False, True, False]


def test_the_beginning_of_a_character_goes_with_the_point(rig: Rig) -> None:
    execution = rig.begin()
    execution.output(1, "é".encode()[:1])
    drain(execution)
    execution.confirm(1)
    assert rig.dealt[-1]["rests"] == {1: [b"", b"\xc3"]}


def test_nothing_is_dealt_with_while_the_merge_waits(rig: Rig) -> None:
    execution = rig.begin()
    rig.merge.message(1, None)  # its fence has not been seen
    drain(execution)
    execution.confirm(1)
    assert rig.dealt == []


class SlowClerk:
    """Keeps a question for itself, as long as its promise is being made."""

    def ask(self, execution: Execution, question: Question, *, told: bool) -> None:
        """Nothing yet."""

    def reply(self, execution: Execution, request: str, answer: Answer, on_refused: OnRefused) -> None:
        """Nobody does."""


def test_nothing_is_dealt_with_while_a_question_has_not_been_told(rig: Rig) -> None:
    """Or the next node would take the telling of that one for the telling of the code's next question."""
    execution = rig.begin()
    execution.inputs.consult(SlowClerk())
    question = Question("m_1", "? ")
    rig.message(1)
    execution.ask_input(question)
    drain(execution)
    execution.confirm(1)
    rig.points.relieve()
    assert rig.dealt == []
    execution.tell_question(question)
    drain(execution)
    execution.confirm(2)
    assert rig.numbers == [{1: 2}]


def test_nothing_is_dealt_with_while_a_message_is_missing(rig: Rig) -> None:
    execution = rig.begin()
    rig.message(2)
    drain(execution)
    execution.confirm(1)
    assert rig.dealt == []
    rig.message(1)
    execution.output(0, b"text")
    drain(execution)
    execution.confirm(2)
    assert rig.dealt[-1]["confirmed"] == 2


def test_an_execution_that_nobody_reads_needs_no_confirmation(rig: Rig) -> None:
    async def ignored() -> None:
        execution = rig.begin()
        waiting = asyncio.ensure_future(execution.finished())
        await asyncio.sleep(0)
        execution.output(0, b"text")
        execution.finish("ok")
        await waiting

    rig.loop.run_until_complete(ignored())
    assert rig.survival.had_ended(1)


def test_the_worker_hears_of_many_confirmations_in_one(rig: Rig) -> None:
    execution = rig.begin()
    for number in range(1, 130):
        rig.message(number)
        execution.output(0, b"text")
        drain(execution)
        execution.confirm(execution.told)
    assert [envelope.body["number"] for envelope in rig.sent] == [64, 128]


def test_a_full_journal_that_cannot_be_dealt_with_is_abandoned_and_then_goes_on(rig: Rig) -> None:
    execution = rig.begin()
    rig.merge.message(1, None)
    drain(execution)
    while not rig.survival.journal.full:
        rig.survival.journal._words[0] += 2**20  # as if so much had been read
    rig.points.relieve()
    assert rig.abandoned
    assert rig.survival.journal.abandoned
    rig.merge.give_up(1)
    rig.merge._waiting.clear()
    execution.output(0, b"text")
    drain(execution)
    execution.confirm(2)
    assert not rig.survival.journal.abandoned


def test_points_are_made_after_a_while_or_after_so_much(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        monkeypatch.setattr(module, "POINT_BYTES", 1000)
        execution = rig.begin()
        drain(execution)
        execution.confirm(1)
        assert rig.dealt == []
        async with asyncio.timeout(10):
            while not rig.dealt:
                await asyncio.sleep(0)
        for number in range(1, 33):
            assert len(rig.dealt) == 1
            rig.message(number)
            execution.output(0, b"text")
            drain(execution)
        execution.confirm(execution.told)
        assert rig.dealt[1]["confirmed"] == 32

    rig.loop.run_until_complete(run())


def test_what_another_execution_has_not_told_yet_is_behind_the_point(rig: Rig) -> None:
    first = rig.begin()
    drain(first)
    first.output(0, b"text")
    second = rig.begin()
    drain(second)
    first.confirm(1)
    second.confirm(1)
    assert rig.numbers == [{1: 1}]
    drain(first)
    first.confirm(2)
    assert rig.numbers[-1] == {1: 2, 2: 1}
