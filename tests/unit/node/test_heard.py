"""An execution that goes on in another node tells what has not been told, under the numbers that follow."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from capsule.events import Display, Event, Finished, InputRequest, Output, Progress, Started, Status
from capsule.node.asking import Question
from capsule.node.execution import ExecuteRequest, Execution
from capsule.node.heard import Heard
from tests.unit.node.hosts import Host

if TYPE_CHECKING:
    from collections.abc import Iterator

PLAIN = {"text/plain": "x"}


@pytest.fixture
def execution() -> Iterator[Execution]:
    loop = asyncio.new_event_loop()
    yield Execution("x_1", Host(), ExecuteRequest("1", allow_input=True), loop)
    loop.close()


def events(execution: Execution) -> list[Event]:
    found = []
    while (event := execution.take()) is not None:
        found.append(event)
    return found


def test_text_that_was_told_is_left_out_however_it_is_cut(execution: Execution) -> None:
    told = [Output("x_1", 2, "stdout", "hé"), Output("x_1", 3, "stderr", "e"), Output("x_1", 4, "stdout", "ll")]
    execution.go_on(4, [b"", b""], Heard(told))
    execution.output(0, b"h")
    execution.output(0, "éllo".encode())
    execution.output(1, b"e")
    execution.output(1, b"rr")
    assert events(execution) == [Output("x_1", 5, "stdout", "o"), Output("x_1", 6, "stderr", "rr")]


def test_a_character_goes_on_where_it_was_cut(execution: Execution) -> None:
    execution.go_on(1, ["é".encode()[:1], b""], Heard(()))
    execution.output(0, "é!".encode()[1:])
    assert events(execution) == [Output("x_1", 2, "stdout", "é!")]


def test_of_other_events_as_many_are_left_out_as_were_told(execution: Execution) -> None:
    told: list[Event] = [
        Started("x_1", 1),
        Display("x_1", 2, PLAIN, {}),
        InputRequest("x_1", 3, "m_1", "who? ", password=False),
        Status("x_1", 4, "interrupting", "interrupt"),
    ]
    execution.go_on(4, [b"", b""], Heard(told))
    for _ in range(2):
        execution.display(Display("x_1", 0, PLAIN, {}))
    execution.ask_input(Question("m_1", "who? "))
    execution.progress(1, 2, "")
    assert execution.inputs.waits_for("m_1")
    execution.finish("ok")
    *rest, last = events(execution)
    assert rest == [Display("x_1", 5, PLAIN, {}), Progress("x_1", 6, 1, 2, "")]
    assert (type(last), last.sequence) == (Finished, 7)


def test_one_of_which_nothing_was_told_begins_as_any_other(execution: Execution) -> None:
    execution.go_on(0, [b"", b""], Heard(()))
    execution.begin()
    assert events(execution) == [Started("x_1", 1)]


def test_a_question_that_another_node_has_told_can_be_answered(execution: Execution) -> None:
    execution.go_on(3, [b"", b""], Heard(()))
    execution.inputs.expect("m_1")
    assert events(execution) == []
    execution.reply_input("m_1", "me")
    assert not execution.inputs.waits_for("m_1")
