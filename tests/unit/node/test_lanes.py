"""The line-ups of subshells beside that of the main shell."""

from __future__ import annotations

import asyncio

import pytest

from capsule.node.execution import ExecuteRequest, Execution
from capsule.node.lanes import MOST, Lanes
from capsule_protocol.errors import SessionError
from tests.unit.node.hosts import Host

HOST = Host()


@pytest.fixture
def lanes() -> Lanes:
    made = Lanes()
    made.open("a")
    made.open("b")
    return made


class Serials:
    """Executions as a session lines them up and sends them."""

    def __init__(self, lanes: Lanes) -> None:
        self._lanes = lanes
        self._loop = asyncio.new_event_loop()
        self._loop.close()
        self.last = 0

    def add(self, name: str, shell: str = "", **options: str) -> Execution:
        execution = Execution(name, HOST, ExecuteRequest(name, subshell=shell, **options), self._loop)  # type: ignore[arg-type]
        self._lanes.add(execution)
        return execution

    def send(self) -> list[str]:
        sent = []
        for lane in list(self._lanes.all()):
            while (execution := lane.next_to_send(self.last + 1)) is not None:
                self.last += 1
                sent.append(execution.id)
        return sent


def test_shells_do_not_wait_for_each_other_and_a_subshell_has_one_at_its_worker(lanes: Lanes) -> None:
    serials = Serials(lanes)
    main = [serials.add(f"m{n}") for n in range(2)]
    aside = [serials.add(f"a{n}", "a") for n in range(2)]
    other = serials.add("b0", "b")
    assert serials.send() == ["m0", "m1", "a0", "b0"]
    assert (len(lanes), lanes.queued) == (5, 1)
    assert [execution.serial for execution in (*main, aside[0], other)] == [1, 2, 3, 4]
    for execution in (*main, aside[0], other):
        assert lanes.sent(execution.id) is lanes.by_serial(execution.serial) is execution
    assert [lanes.is_due(execution) for execution in (main[0], main[1], aside[0], other)] == [True, False, True, True]
    lanes.settle(aside[0])
    assert lanes.sent("a0") is lanes.by_serial(3) is None
    assert serials.send() == ["a1"]


def test_room_and_backlog_are_those_of_the_shell_that_is_named(lanes: Lanes) -> None:
    serials = Serials(lanes)
    serials.add("a0", "a")
    serials.send()
    main, aside, other = (ExecuteRequest("", subshell=shell) for shell in ("", "a", "b"))
    assert [lanes.room_for(request) for request in (main, aside, other)] == [True, False, True]
    assert lanes.room_for(other, [aside, aside])
    assert not lanes.room_for(other, [other])
    assert lanes.waiting_for(aside, [aside, main, other]) == 1
    assert lanes.waiting_for(main, [aside, main, other]) == 0


def test_a_batch_that_is_stopped_is_that_of_one_shell(lanes: Lanes) -> None:
    serials = Serials(lanes)
    failed, *_ = [serials.add(f"a{n}", "a", batch="x") for n in range(3)]
    serials.add("b0", "b", batch="x")
    serials.add("b1", "b", batch="x")
    serials.send()
    lanes.settle(failed)
    assert [execution.id for execution in lanes.take_batch_of(failed)] == ["a1", "a2"]
    assert lanes.queued == 1


def test_one_that_is_queued_in_any_shell_can_be_taken_back(lanes: Lanes) -> None:
    serials = Serials(lanes)
    serials.add("a0", "a")
    taken = serials.add("a1", "a")
    serials.send()
    assert lanes.take_queued("a1") is taken
    assert lanes.take_queued("a1") is None


def test_a_closed_one_takes_nothing_and_is_kept_until_what_runs_there_has_ended(lanes: Lanes) -> None:
    serials = Serials(lanes)
    running, queued = serials.add("a0", "a"), serials.add("a1", "a")
    serials.send()
    assert lanes.close("a") == (running, [queued])
    assert lanes.names == ["b"]
    assert lanes.sent("a0") is running
    for refused in (lambda: lanes.check("a"), lambda: lanes.close("a")):
        with pytest.raises(SessionError) as caught:
            refused()
        assert caught.value.code == "subshell_unknown"
    lanes.settle(running)
    assert lanes.take_batch_of(running) == []
    assert len(list(lanes.all())) == 2


def test_closed_ones_that_are_busy_count_until_they_are_done(lanes: Lanes) -> None:
    serials = Serials(lanes)
    running = serials.add("a0", "a")
    serials.send()
    lanes.close("a")
    for n in range(MOST - 2):
        lanes.open(f"c{n}")
    with pytest.raises(SessionError) as caught:
        lanes.open("more")
    assert caught.value.code == "too_many_subshells"
    lanes.settle(running)
    lanes.open("more")


def test_all_of_them_go_with_the_worker(lanes: Lanes) -> None:
    serials = Serials(lanes)
    for name, shell in (("m0", ""), ("a0", "a"), ("a1", "a"), ("b0", "b")):
        serials.add(name, shell)
    serials.send()
    sent, queued = lanes.take_all()
    assert [execution.id for execution in sent] == ["m0", "a0", "b0"]
    assert [execution.id for execution in queued] == ["a1"]
    assert (lanes.names, len(lanes)) == ([], 0)
