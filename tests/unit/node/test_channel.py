"""The buffer of an execution is bounded in every mode, says what it lost, and numbers what remains without a gap."""

from __future__ import annotations

import asyncio
import tracemalloc
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from capsule.events import Display, Event, Finished, Output, Started, Status
from capsule.node.channel import CHUNK_BYTES, MARGIN_BYTES, Channel

if TYPE_CHECKING:
    from capsule.config import Backpressure

pytestmark = pytest.mark.anyio

BOUND = 1000


@dataclass
class Calls:
    """What a channel asked of the node."""

    made: list[str] = field(default_factory=list)

    def channel(self, mode: Backpressure, bound: int = BOUND) -> Channel:
        return Channel("x_1", mode, bound, lambda: self.made.append("full"), lambda: self.made.append("room"))


def take_all(channel: Channel) -> list[Event]:
    events = []
    while (event := channel.take()) is not None:
        events.append(event)
    return events


def texts(events: list[Event]) -> list[str]:
    return [event.text for event in events if isinstance(event, Output)]


def write(channel: Channel, text: str, stream: int = 0) -> None:
    channel.put_text(stream, text, len(text))


def show(channel: Channel, name: str, size: int = 100) -> None:
    channel.put_event(lambda number: Display("x_1", number, {"text/plain": name}, {}), size, droppable=True)


def end(channel: Channel) -> Finished:
    return channel.close(lambda number: Finished("x_1", number, "ok", dropped=channel.dropped))


def test_tiny_prints_that_nobody_reads_take_the_memory_that_is_counted() -> None:
    channel = Calls().channel("block", 2**30)
    size = 16 * CHUNK_BYTES
    tracemalloc.start()
    for number in range(size // 8):
        write(channel, f"{number:8}")
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 2 * size
    assert len("".join(texts(take_all(channel)))) == size


def test_a_million_tiny_prints_are_few_events() -> None:
    channel = Calls().channel("block", 2**30)
    for _ in range(200_000):
        write(channel, "x")
    events = texts(take_all(channel))
    assert sum(map(len, events)) == 200_000
    assert max(map(len, events)) <= CHUNK_BYTES
    assert len(events) == 4


def test_output_of_two_streams_and_what_stands_between_are_not_put_together() -> None:
    channel = Calls().channel("block")
    channel.put_event(lambda number: Started("x_1", number))
    write(channel, "a")
    write(channel, "b")
    write(channel, "c", stream=1)
    show(channel, "figure")
    write(channel, "d")
    end(channel)
    events = take_all(channel)
    assert [type(event) for event in events] == [Started, Output, Output, Display, Output, Finished]
    assert texts(events) == ["ab", "c", "d"]
    assert [event.sequence for event in events] == [1, 2, 3, 4, 5, 6]
    assert channel.ended


def test_block_keeps_everything_and_tells_when_to_stop_and_to_go_on() -> None:
    calls = Calls()
    channel = calls.channel("block")
    for text in ("a" * 900, "b" * 200, "c" * 200):
        write(channel, text, stream=len(calls.made) % 2)
    assert calls.made == ["full"]
    assert channel.full
    assert "".join(texts(take_all(channel))) == "a" * 900 + "b" * 200 + "c" * 200
    assert calls.made == ["full", "room"]
    assert channel.dropped == 0


def test_drop_newest_keeps_what_came_first_and_counts_the_rest() -> None:
    channel = Calls().channel("drop_newest")
    write(channel, "a" * 900)
    write(channel, "b" * 200)
    show(channel, "figure", 300)
    assert texts(take_all(channel)) == ["a" * 900]
    write(channel, "c")
    end(channel)
    after, finished = take_all(channel)
    assert isinstance(after, Output)
    assert (after.text, after.dropped) == ("c", 500)
    assert isinstance(finished, Finished)
    assert finished.dropped == 500


def test_drop_oldest_keeps_what_came_last_and_counts_the_rest() -> None:
    channel = Calls().channel("drop_oldest")
    channel.put_event(lambda number: Started("x_1", number), 0)
    write(channel, "a" * 500)
    show(channel, "figure", 400)
    write(channel, "b" * 900)
    channel.put_event(lambda number: Status("x_1", number, "interrupting", "interrupt"))
    end(channel)
    events = take_all(channel)
    assert [type(event) for event in events] == [Started, Output, Status, Finished]
    assert [event.sequence for event in events] == [1, 2, 3, 4]
    assert isinstance(events[1], Output)
    assert (events[1].text, events[1].dropped) == ("b" * 900, 900)
    assert isinstance(events[-1], Finished)
    assert events[-1].dropped == 900


def test_error_drops_and_tells_once() -> None:
    calls = Calls()
    channel = calls.channel("error")
    for _ in range(5):
        write(channel, "a" * 400)
    assert calls.made == ["full"]
    assert channel.dropped == 1200


@pytest.mark.parametrize("mode", ["block", "drop_newest", "drop_oldest", "error"])
def test_what_asks_or_tells_is_never_dropped(mode: Backpressure) -> None:
    channel = Calls().channel(mode)
    write(channel, "a" * 1000)
    channel.put_event(lambda number: Status("x_1", number, "killing", "timeout"))
    end(channel)
    assert [type(event) for event in take_all(channel)][-2:] == [Status, Finished]


@pytest.mark.parametrize("mode", ["drop_newest", "drop_oldest", "error"])
def test_a_flood_of_displays_is_bounded_too(mode: Backpressure) -> None:
    channel = Calls().channel(mode)
    for number in range(1000):
        show(channel, str(number))
    events = take_all(channel)
    assert len(events) == 10
    assert channel.dropped == 99_000


def test_who_is_being_ended_waits_for_no_reader_but_stays_bounded() -> None:
    calls = Calls()
    channel = calls.channel("block")
    write(channel, "a" * 2000)
    channel.hurry()
    assert calls.made == ["full", "room"]
    for _ in range(MARGIN_BYTES // 1000 + 100):
        write(channel, "b" * 1000)
    assert channel.dropped > 0
    end(channel)
    kept = sum(map(len, texts(take_all(channel))))
    assert kept <= 2000 + MARGIN_BYTES


def test_who_goes_on_in_spite_of_being_ended_waits_for_the_reader_again() -> None:
    calls = Calls()
    channel = calls.channel("block")
    write(channel, "a" * 500)
    channel.hurry()
    write(channel, "b" * 1000)
    assert calls.made == []
    channel.calm()
    write(channel, "c" * 1000)
    assert calls.made == ["full"]
    write(channel, "d" * MARGIN_BYTES)
    take_all(channel)
    assert calls.made == ["full", "room"]
    assert channel.dropped == 0


def test_who_has_left_does_not_come_back() -> None:
    calls = Calls()
    channel = calls.channel("block")
    channel.hurry()
    channel.discard()
    channel.calm()
    write(channel, "a" * 2000)
    assert calls.made == []
    assert take_all(channel) == []


def test_discard_keeps_the_last_event_only_and_numbers_it_as_if_all_had_been_read() -> None:
    calls = Calls()
    channel = calls.channel("block")
    write(channel, "a" * 2000)
    channel.discard()
    assert calls.made == ["full", "room"]
    write(channel, "b")
    finished = end(channel)
    assert finished.sequence == 2
    assert take_all(channel) == [finished]


def test_discard_after_the_end_keeps_the_number_of_the_last_event() -> None:
    channel = Calls().channel("block")
    write(channel, "a")
    finished = end(channel)
    channel.discard()
    assert take_all(channel) == [finished]
    assert finished.sequence == 2


async def test_a_waiting_consumer_is_woken_by_output_and_by_the_end() -> None:
    loop = asyncio.get_running_loop()
    channel = Calls().channel("block")
    waiter = channel.wait(loop)
    write(channel, "a")
    assert waiter.done()
    waiter = channel.wait(loop)
    end(channel)
    assert waiter.done()


async def test_only_one_consumer_may_wait_and_a_cancelled_one_does_not_count() -> None:
    loop = asyncio.get_running_loop()
    channel = Calls().channel("block")
    first = channel.wait(loop)
    with pytest.raises(RuntimeError, match="one consumer"):
        channel.wait(loop)
    first.cancel()
    second = channel.wait(loop)
    write(channel, "a")
    assert second.done()
    assert texts(take_all(channel)) == ["a"]


# marks


async def test_output_behind_a_mark_has_a_number_of_its_own() -> None:
    channel = Calls().channel("block")
    channel.put_text(0, "a", 1)
    channel.put_text(0, "b", 1)
    assert channel.mark() == channel.mark() == 1
    channel.put_text(0, "c", 1)
    channel.put_text(0, "d", 1)
    assert channel.mark() == 2
    events = take_all(channel)
    assert [event.sequence for event in events] == [1, 2]
    assert texts(events) == ["ab", "cd"]
    assert channel.mark() == 2


async def test_output_before_a_mark_can_still_be_dropped_and_is_counted() -> None:
    channel = Calls().channel("drop_oldest")
    channel.put_text(0, "a", 600)
    channel.mark()
    channel.put_text(0, "b", 600)
    (event,) = take_all(channel)
    assert isinstance(event, Output)
    assert (event.text, event.dropped, channel.dropped) == ("b", 600, 600)
