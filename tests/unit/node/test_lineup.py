"""What may be sent to a worker, and when: at most a window ahead, and never past what may cancel the rest."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from capsule.node.execution import ExecuteRequest, Execution
from capsule.node.lineup import WINDOW, Lineup
from tests.unit.node.hosts import Host


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def fill(lineup: Lineup, loop: asyncio.AbstractEventLoop, *requests: ExecuteRequest) -> list[Execution]:
    executions = [
        Execution(f"x_{lineup.queued}_{number}", Host(), request, loop) for number, request in enumerate(requests)
    ]
    for execution in executions:
        lineup.add(execution)
    return executions


def send_all(lineup: Lineup, serial: int = 0) -> list[Execution]:
    sent = []
    while (execution := lineup.next_to_send(serial + 1)) is not None:
        serial += 1
        sent.append(execution)
    return sent


def test_a_window_is_sent_and_each_verdict_makes_room_for_one(loop: asyncio.AbstractEventLoop) -> None:
    lineup = Lineup()
    executions = fill(lineup, loop, *[ExecuteRequest("1")] * (WINDOW + 3))
    assert send_all(lineup) == executions[:WINDOW]
    assert [execution.serial for execution in executions[:WINDOW]] == list(range(1, WINDOW + 1))
    assert lineup.head is executions[0]
    lineup.settle(executions[0])
    assert lineup.head is executions[1]
    assert send_all(lineup, WINDOW) == [executions[WINDOW]]
    assert len(lineup) == WINDOW + 2
    assert lineup.queued == 2


def test_while_the_worker_has_more_than_a_window_nothing_is_sent(loop: asyncio.AbstractEventLoop) -> None:
    """A node takes over what its predecessor had sent, those included whose verdicts that one had not written down."""
    lineup = Lineup()
    plain = ExecuteRequest("1")
    restored = [Execution(f"x_{number}", Host(), plain, loop) for number in range(WINDOW + 2)]
    for serial, execution in enumerate(restored, 1):
        lineup.restore(execution, serial)
    (waiting,) = fill(lineup, loop, plain)
    assert lineup.backlog([plain]) == 2
    for execution in restored[:3]:
        assert not lineup.has_room()
        assert send_all(lineup) == []
        lineup.settle(execution)
    assert send_all(lineup, WINDOW + 2) == [waiting]


def test_who_waits_only_to_be_written_down_does_not_wait_for_others(loop: asyncio.AbstractEventLoop) -> None:
    lineup = Lineup()
    held = fill(lineup, loop, *[ExecuteRequest("1")] * (WINDOW - 2))
    for execution in held:
        execution.hold(lambda: None)
    assert send_all(lineup) == []
    plain, stopper = ExecuteRequest("1"), ExecuteRequest("1", stop_on_error=True)
    assert lineup.backlog() == 0
    assert lineup.backlog([plain] * 2) == 0
    assert lineup.backlog([plain] * 5) == 3
    assert lineup.backlog([stopper, plain, plain]) == 2  # nothing is sent behind it
    fill(lineup, loop, stopper)
    assert lineup.backlog() == 0
    assert lineup.backlog([plain] * 5) == 5
    fill(lineup, loop, *[plain] * 3)
    assert lineup.backlog() == 3


def test_there_is_room_for_what_would_be_sent_at_once(loop: asyncio.AbstractEventLoop) -> None:
    lineup = Lineup()
    plain, stopper = ExecuteRequest("1"), ExecuteRequest("1", stop_on_error=True)
    assert lineup.has_room([plain] * (WINDOW - 1))
    assert not lineup.has_room([plain] * WINDOW)
    assert not lineup.has_room([stopper])
    assert not lineup.has_room([stopper, plain])
    fill(lineup, loop, *[plain] * 3)
    send_all(lineup)
    assert lineup.has_room([plain] * (WINDOW - 4))
    assert not lineup.has_room([plain] * (WINDOW - 3))
    fill(lineup, loop, stopper)
    assert not lineup.has_room()
    send_all(lineup, 3)
    assert not lineup.has_room()


def test_only_those_that_may_be_sent_now_are_asked_to_be_written_down(loop: asyncio.AbstractEventLoop) -> None:
    lineup, asked = Lineup(), []
    requests = [ExecuteRequest("1"), ExecuteRequest("2", stop_on_error=True), ExecuteRequest("3")]
    for number, execution in enumerate(fill(lineup, loop, *requests)):
        execution.hold(lambda number=number: asked.append(number))  # type: ignore[misc]  # of this turn
    assert lineup.next_to_send(1) is None
    assert asked == [0, 1]  # the third is behind one that may cancel it


def test_what_is_sent_leaves_less_room_and_is_no_backlog(loop: asyncio.AbstractEventLoop) -> None:
    lineup = Lineup()
    fill(lineup, loop, *[ExecuteRequest("1")] * (WINDOW + 2))
    send_all(lineup)
    assert lineup.backlog() == 2
    assert lineup.backlog([ExecuteRequest("1")] * 3) == 5


def test_nothing_is_sent_behind_one_that_cancels_others(loop: asyncio.AbstractEventLoop) -> None:
    lineup = Lineup()
    plain, stopper, behind = fill(
        lineup, loop, ExecuteRequest("1"), ExecuteRequest("2", stop_on_error=True, batch="b"), ExecuteRequest("3")
    )
    assert send_all(lineup) == [plain, stopper]
    lineup.settle(plain)
    assert send_all(lineup) == []
    lineup.settle(stopper)
    assert send_all(lineup) == [behind]


def test_a_batch_is_taken_out_of_the_queue_and_the_rest_stays(loop: asyncio.AbstractEventLoop) -> None:
    lineup = Lineup()
    executions = fill(lineup, loop, *[ExecuteRequest("1", batch=name) for name in "abab"])
    assert lineup.take_batch("b") == [executions[1], executions[3]]
    assert send_all(lineup) == [executions[0], executions[2]]


def test_a_queued_one_can_be_taken_and_a_sent_one_cannot(loop: asyncio.AbstractEventLoop) -> None:
    lineup = Lineup()
    first, second = fill(lineup, loop, ExecuteRequest("1", stop_on_error=True), ExecuteRequest("2"))
    send_all(lineup)
    assert lineup.take_queued(first.id) is None
    assert lineup.sent(first.id) is first
    assert lineup.by_serial(1) is first
    assert lineup.take_queued(second.id) is second
    assert lineup.take_queued(second.id) is None


def test_taking_all_empties_it(loop: asyncio.AbstractEventLoop) -> None:
    lineup = Lineup()
    executions = fill(lineup, loop, *[ExecuteRequest("1")] * (WINDOW + 1))
    send_all(lineup)
    assert lineup.take_all() == (executions[:WINDOW], executions[WINDOW:])
    assert len(lineup) == 0
    assert lineup.head is None
    assert lineup.by_serial(1) is None
