"""The journal: what was read of a worker is in it once, wherever the node that reads dies."""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING, Any

import pytest

from capsule.node import journal as module
from capsule.node.clock import Reading
from capsule.node.journal import DATA, GIVEN_UP, MESSAGE, RING_BYTES, SETTLED, Journal, name_of

if TYPE_CHECKING:
    from collections.abc import Iterator


class Died(BaseException):
    """The node is killed here."""


class Worker:
    """Two pipes, and the journal of the node that is there now."""

    def __init__(self) -> None:
        self.pipes = [os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC) for _ in range(2)]
        self.journal = Journal.create()

    def write(self, stream: int, data: bytes) -> None:
        assert os.write(self.pipes[stream][1], data) == len(data)

    def read(self, stream: int, floor: int = 0) -> bytes:
        return self.journal.read(stream, self.pipes[stream][0], floor)

    def lose_node(self) -> None:
        """Another node gets the descriptors that the box has."""
        memory, relay = self.journal.descriptors[2], self.journal.descriptors[:2]
        copies = os.dup(memory), (os.dup(relay[0]), os.dup(relay[1]))
        self.journal.close()
        self.journal = Journal(*copies)

    def told(self, stream: int) -> bytes:
        return b"".join(record.data for record in self.journal.records() if record.stream == stream)

    def close(self) -> None:
        self.journal.close()
        for pipe in self.pipes:
            for descriptor in pipe:
                os.close(descriptor)


@pytest.fixture
def worker() -> Iterator[Worker]:
    worker = Worker()
    yield worker
    worker.close()


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> int:
    """A ring that is soon full."""
    monkeypatch.setattr(module, "RING_BYTES", size := 2**21)
    return size


def test_what_goes_in_comes_out_in_order(worker: Worker) -> None:
    worker.write(0, b"out")
    worker.write(1, b"err")
    assert worker.read(1, floor=3) == b"err"
    worker.journal.record(MESSAGE, 7)
    assert worker.read(0, floor=4) == b"out"
    worker.journal.record(SETTLED)
    worker.journal.record(GIVEN_UP, 9)
    worker.lose_node()
    assert [record[:4] for record in worker.journal.records()] == [
        (DATA, 1, 3, b"err"),
        (MESSAGE, 0, 7, b""),
        (DATA, 0, 4, b"out"),
        (SETTLED, 0, 0, b""),
        (GIVEN_UP, 0, 9, b""),
    ]


def test_reading_is_as_of_a_pipe(worker: Worker) -> None:
    with pytest.raises(BlockingIOError):
        worker.read(0)
    assert list(worker.journal.records()) == []
    worker.write(0, b"last")
    os.close(worker.pipes[0][1])
    assert (worker.read(0), worker.read(0)) == (b"last", b"")
    worker.pipes[0] = worker.pipes[0][:1]  # type: ignore[assignment]  # its other end is closed


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", ["splice", "readv"])
def test_no_byte_is_lost_or_doubled_where_the_node_dies(
    worker: Worker,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    after: bool,
) -> None:
    worker.write(1, b"first")
    worker.read(1)
    worker.write(0, b"second")
    call = getattr(os, step)

    def dying(*arguments: Any, **keywords: Any) -> None:
        if after:
            call(*arguments, **keywords)
        raise Died

    with monkeypatch.context() as patch:
        patch.setattr(os, step, dying)
        with pytest.raises(Died):
            worker.read(0, floor=5)
    for _ in range(2):  # and again before anything else is done
        worker.lose_node()
    if step == "splice" and not after:
        assert worker.told(0) == b""
        assert worker.read(0, floor=5) == b"second"
    worker.write(0, b" third")
    worker.read(0, floor=6)
    assert (worker.told(0), worker.told(1)) == (b"second third", b"first")
    assert [record.value for record in worker.journal.records()] == [0, 5, 6]


def test_what_was_counted_already_is_not_counted_again(worker: Worker) -> None:
    worker.write(0, b"whole")
    worker.read(0)
    worker.lose_node()
    assert worker.told(0) == b"whole"


def test_a_mark_forgets_what_lies_before_it(worker: Worker) -> None:
    worker.write(0, b"old")
    worker.read(0)
    position = worker.journal.end
    worker.write(0, b"new")
    worker.read(0)
    worker.journal.mark(position, {"confirmed": 3, "numbers": {7: 2}})
    worker.lose_node()
    assert worker.told(0) == b"new"
    assert worker.journal.state == {"confirmed": 3, "numbers": {7: 2}}


def test_a_state_that_has_no_room_is_refused_and_the_last_mark_stays(worker: Worker) -> None:
    worker.journal.mark(0, {"confirmed": 1})
    with pytest.raises(ValueError, match="bytes"):
        worker.journal.mark(0, {"rests": b"x" * 4096})
    worker.lose_node()
    assert worker.journal.state == {"confirmed": 1}


@pytest.mark.parametrize("seed", range(5))
def test_it_goes_round_without_loss(worker: Worker, small: int, seed: int) -> None:
    chance = random.Random(seed)
    expected, seen, sent = b"", b"", 0
    while sent < 3 * small:
        data = chance.randbytes(chance.choice((1, 100, 5000, 64_000)))
        worker.write(0, data)
        sent += len(data)
        expected += worker.read(0)
        if chance.random() < 0.3:
            worker.journal.record(MESSAGE, 1)
        if chance.random() < 0.1:
            worker.lose_node()
        if worker.journal.full or chance.random() < 0.1:
            seen += worker.told(0)
            worker.journal.mark(worker.journal.end, {})
        assert not worker.journal.full
    assert seen + worker.told(0) == expected
    assert not worker.journal.abandoned


def test_an_empty_journal_gives_its_memory_back(worker: Worker) -> None:
    for _ in range(2 * RING_BYTES // 60_000):
        worker.write(0, bytes(60_000))
        worker.read(0)
        worker.journal.give_back()
        worker.journal.mark(worker.journal.end, {"confirmed": 1})
        worker.journal.give_back()
    assert os.fstat(worker.journal.descriptors[2]).st_blocks * 512 < RING_BYTES // 2
    worker.write(0, b"new")
    worker.read(0)
    worker.lose_node()
    assert (worker.told(0), worker.journal.state) == (b"new", {"confirmed": 1})


def test_when_it_is_full_there_is_room_for_messages_still(worker: Worker, small: int) -> None:
    while not worker.journal.full:
        worker.write(0, bytes(60_000))
        worker.read(0)
    for number in range(2000):
        worker.journal.record(MESSAGE, number)
    assert not worker.journal.abandoned
    assert small < RING_BYTES


def test_one_that_was_abandoned_is_whole_again_behind_the_next_mark(worker: Worker) -> None:
    worker.write(0, b"recorded")
    worker.read(0)
    early = worker.journal.end
    worker.journal.abandon()
    worker.write(0, b"not recorded")
    assert worker.read(0) == b"not recorded"
    assert not worker.journal.full
    assert worker.journal.restart()
    assert not worker.journal.restart()
    worker.write(0, b"again")
    worker.read(0)
    assert worker.journal.abandoned
    assert early == worker.journal.end - 16 - len(b"again")
    worker.journal.mark(early, {})
    worker.lose_node()
    assert not worker.journal.abandoned
    assert worker.told(0) == b"again"


def test_the_last_executions_that_were_dispatched_are_known(worker: Worker) -> None:
    for serial in range(1, 40):
        worker.journal.dispatch(serial, name_of(f"x_{serial}"))
    worker.lose_node()
    assert worker.journal.dispatched() == {name_of(f"x_{serial}"): serial for serial in range(1, 40)}


def test_one_that_has_not_ended_is_known_however_many_come_behind_it(worker: Worker) -> None:
    """As the main shell's long cell, while subshells run thousands."""
    for serial in range(1, 73):
        worker.journal.dispatch(serial, name_of(f"x_{serial}"))
    for serial in range(73, 5000):
        worker.journal.dispatch(serial, name_of(f"x_{serial}"))
        worker.journal.release(name_of(f"x_{serial}"))
        if serial % 1000 == 0:
            worker.lose_node()
            for ended in range(73, serial + 1):
                worker.journal.release(name_of(f"x_{ended}"))
    kept = [*range(1, 73), *range(5000 - (256 - 72), 5000)]
    assert sorted(worker.journal.dispatched().values()) == kept


def test_one_that_is_sent_again_has_the_place_that_it_had(worker: Worker) -> None:
    worker.journal.dispatch(1, name_of("x_1"))
    worker.lose_node()
    for _ in range(1000):
        worker.journal.dispatch(1, name_of("x_1"))
    assert worker.journal.dispatched() == {name_of("x_1"): 1}


def test_the_largest_state_fits(worker: Worker) -> None:
    """72 executions at the worker, each in the midst of a character of both streams."""
    lanes = [[2**40, 2**32 - 1, 2**31, b"\xff" * 31]] * 2
    serials = range(2**40, 2**40 + 72)
    state = {
        "floor": 2**40,
        "passed": 2**32 - 1,
        "given_up": 2**32 - 1,
        "lanes": lanes,
        "confirmed": 2**40,
        "numbers": dict.fromkeys(serials, 2**40),
        "rests": {serial: [b"\xf0\x9f\x98"] * 2 for serial in serials},
        "newest": 2**40 + 72,
    }
    worker.journal.mark(2**40, state)
    assert worker.journal.state == state


def test_the_next_node_finds_how_the_time_of_each_execution_stood(worker: Worker) -> None:
    one, other, never = map(name_of, ("x_1", "x_2", "x_3"))
    for serial, name in enumerate((one, other, never), 1):
        worker.journal.dispatch(serial, name)
    worker.journal.set_time(one, Reading(500.0, 0.0))
    worker.journal.set_time(one, Reading(-11.0, 2.5))
    worker.journal.set_time(other, Reading(700.0, 0.0))
    worker.journal.mark(0, {"newest": 3})  # which is beside it
    worker.lose_node()
    assert [worker.journal.time(name) for name in (one, other, never)] == [
        Reading(-11.0, 2.5),
        Reading(700.0, 0.0),
        None,
    ]


def test_a_place_that_is_given_to_another_execution_has_no_time_yet(worker: Worker) -> None:
    names = [name_of(f"x_{number}") for number in range(1, 600)]
    for serial, name in enumerate(names, 1):
        worker.journal.dispatch(serial, name)
        assert worker.journal.time(name) is None
        worker.journal.set_time(name, Reading(float(serial), 0.0))
        worker.journal.release(name)
        worker.journal.set_time(name, Reading(1.0, 0.0))  # it has ended
    worker.lose_node()
    assert worker.journal.time(names[-1]) == Reading(599.0, 0.0)
