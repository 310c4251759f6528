"""Two pipes and a stream of messages come out in the order in which the worker made them, however they are cut."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capsule.node.merge import MAX_WAITING, Merge
from capsule_protocol.errors import RemoteProtocolError
from capsule_protocol.marks import FENCE, MESSAGE, OWNER, pack

TOKEN = bytes(range(65, 81))


@dataclass
class Sink:
    """What a merge delivered: ("bytes", owner, stream, data) and ("message", it), neighbours put together."""

    items: list[tuple[Any, ...]] = field(default_factory=list)

    def on_bytes(self, owner: int, stream: int, data: bytes) -> None:
        assert data
        last = self.items[-1] if self.items else ("",)
        if last[0] == "bytes" and last[1:3] == (owner, stream):
            self.items[-1] = ("bytes", owner, stream, last[3] + data)
        else:
            self.items.append(("bytes", owner, stream, data))

    def on_message(self, message: Any) -> None:
        self.items.append(("message", message))


def merge_into(sink: Sink, newest: int = 9) -> Merge:
    merge = Merge(TOKEN, sink.on_bytes, sink.on_message)
    merge.newest = newest
    return merge


def owner(serial: int) -> bytes:
    return pack(TOKEN, serial, 0, OWNER)


def fence(number: int, serial: int = 1, *, message: bool = False) -> bytes:
    return pack(TOKEN, serial, number, FENCE | (MESSAGE if message else 0))


def test_bytes_without_a_mark_belong_to_nobody() -> None:
    sink = Sink()
    merge_into(sink).feed(0, b"early")
    assert sink.items == [("bytes", 0, 0, b"early")]


def test_the_floor_owns_what_is_read_after_it_was_raised() -> None:
    sink = Sink()
    merge = merge_into(sink)
    merge.feed(0, b"a", floor=1)
    merge.feed(1, b"b", floor=1)
    merge.feed(0, b"c", floor=2)
    assert sink.items == [("bytes", 1, 0, b"a"), ("bytes", 1, 1, b"b"), ("bytes", 2, 0, b"c")]


def test_a_mark_may_go_back_to_an_earlier_owner_and_a_later_floor_ends_that() -> None:
    sink = Sink()
    merge = merge_into(sink)
    merge.feed(0, b"two" + owner(1) + b"thread of one", floor=2)
    merge.feed(0, b"still", floor=2)
    merge.feed(0, b"three", floor=3)
    assert sink.items == [("bytes", 2, 0, b"two"), ("bytes", 1, 0, b"thread of onestill"), ("bytes", 3, 0, b"three")]


def test_streams_that_wait_for_one_message_keep_the_order_of_reading() -> None:
    """The worker writes no fence between them: each time it saw both pipes empty."""
    sink = Sink()
    merge = merge_into(sink)
    for stream in (0, 1):
        merge.feed(stream, fence(1, message=True))
    merge.feed(0, b"2")
    merge.feed(1, b"3")
    merge.feed(0, b"4")
    merge.message(1, "display")
    assert sink.items == [("message", "display"), ("bytes", 1, 0, b"2"), ("bytes", 1, 1, b"3"), ("bytes", 1, 0, b"4")]


def test_a_fence_waits_for_the_other_pipe() -> None:
    sink = Sink()
    merge = merge_into(sink)
    merge.feed(0, owner(1) + b"first" + fence(1) + b"third")
    assert sink.items == [("bytes", 1, 0, b"first")]
    assert merge.held(0) > 0
    merge.feed(1, owner(1) + b"second" + fence(1) + b"fourth")
    assert sink.items[1] == ("bytes", 1, 1, b"second")
    assert set(sink.items[2:]) == {("bytes", 1, 0, b"third"), ("bytes", 1, 1, b"fourth")}
    assert merge.held(0) == merge.held(1) == 0


@pytest.mark.parametrize("message_first", [True, False])
def test_an_announced_message_stands_between_what_is_before_and_behind_its_fence(message_first: bool) -> None:
    sink = Sink()
    merge = merge_into(sink)
    if message_first:
        merge.message(1, "figure")
    merge.feed(0, owner(1) + b"before" + fence(1, message=True) + b"behind")
    merge.feed(1, fence(1, message=True))
    if not message_first:
        assert sink.items == [("bytes", 1, 0, b"before")]
        merge.message(1, "figure")
    assert sink.items == [("bytes", 1, 0, b"before"), ("message", "figure"), ("bytes", 1, 0, b"behind")]


def test_a_message_of_a_plain_fence_waits_for_both_pipes_and_holds_nothing_back() -> None:
    sink = Sink()
    merge = merge_into(sink)
    merge.message(1, "verdict")
    merge.feed(0, owner(1) + b"last words" + fence(1))
    assert sink.items == [("bytes", 1, 0, b"last words")]
    merge.feed(1, fence(1))
    assert sink.items[1:] == [("message", "verdict")]
    merge.feed(0, fence(2) + b"behind")
    merge.feed(1, fence(2))
    assert sink.items[-1] == ("bytes", 1, 0, b"behind")
    merge.message(2, "late")
    assert sink.items[3:] == [("message", "late")]


def test_an_untied_message_is_delivered_at_once() -> None:
    sink = Sink()
    merge_into(sink).message(0, "verdict")
    assert sink.items == [("message", "verdict")]


def test_an_untied_message_stays_behind_what_was_read_before_it() -> None:
    """The verdict comes over another socket than a thread's display: it may overtake that, but not what it holds."""
    sink = Sink()
    merge = merge_into(sink)
    merge.feed(0, owner(1) + fence(1, message=True) + b"printed after the display")
    merge.feed(1, fence(1, message=True))
    merge.message(0, "verdict")
    assert sink.items == []
    merge.message(1, "display")
    expected = [("message", "display"), ("bytes", 1, 0, b"printed after the display"), ("message", "verdict")]
    assert sink.items == expected


def test_an_untied_message_passes_a_fence_that_is_only_half_written() -> None:
    sink = Sink()
    merge = merge_into(sink)
    merge.feed(0, owner(1) + b"a" + fence(1))
    merge.message(0, "verdict")
    merge.feed(1, fence(1))
    assert sink.items == [("bytes", 1, 0, b"a"), ("message", "verdict")]


def test_a_verdict_without_a_fence_is_not_behind_the_next_one_that_was_read_before_it_came() -> None:
    sink = Sink()
    merge = merge_into(sink)
    for stream in (0, 1):
        merge.feed(stream, fence(1, serial=2, message=True) + fence(2, serial=2), floor=2)
    merge.message(0, "verdict 1", 1)
    merge.message(1, "display", 2)
    merge.message(2, "verdict 2", 2)
    assert sink.items == [("message", "verdict 1"), ("message", "display"), ("message", "verdict 2")]
    assert merge.quiet


def test_a_verdict_without_a_fence_is_behind_what_its_own_execution_has_announced() -> None:
    sink = Sink()
    merge = merge_into(sink)
    for stream in (0, 1):
        merge.feed(stream, fence(1, message=True), floor=1)
    for stream in (0, 1):
        merge.feed(stream, b"next", floor=2)
    merge.message(0, "verdict", 1)
    assert sink.items == []
    merge.message(1, "display", 1)
    assert sink.items[:2] == [("message", "display"), ("message", "verdict")]


def test_bytes_that_look_like_the_beginning_of_a_mark_are_not_kept_from_the_verdict() -> None:
    sink = Sink()
    merge = merge_into(sink)
    assert not merge.unsettled
    merge.feed(0, b"x" + TOKEN[:5], floor=1)
    assert merge.unsettled
    merge.settle()
    merge.message(0, "verdict")
    assert sink.items == [("bytes", 1, 0, b"x" + TOKEN[:5]), ("message", "verdict")]


def test_a_message_out_of_turn_does_not_cut_a_mark() -> None:
    """A cancellation is answered while other code writes: half a mark may have been read."""
    sink = Sink()
    merge = merge_into(sink)
    merge.feed(0, owner(1)[:20])
    merge.message(0, "cancelled")
    merge.feed(0, owner(1)[20:] + b"text")
    assert sink.items == [("message", "cancelled"), ("bytes", 1, 0, b"text")]


def test_bytes_that_look_like_the_beginning_of_a_mark_keep_their_owner() -> None:
    sink = Sink()
    merge = merge_into(sink)
    merge.feed(0, b"x" + TOKEN[:1], floor=1)
    merge.feed(0, b"y", floor=2)
    assert sink.items == [("bytes", 1, 0, b"x" + TOKEN[:1]), ("bytes", 2, 0, b"y")]


def test_a_message_that_never_comes_can_be_given_up() -> None:
    """An interrupt may end the code that announced it."""
    sink = Sink()
    merge = merge_into(sink)
    merge.feed(0, owner(1) + fence(1, message=True) + b"behind" + fence(2))
    merge.message(2, "verdict")
    merge.give_up(2)
    assert sink.items == []
    merge.feed(1, fence(1, message=True) + fence(2) + fence(3, message=True) + b"later")
    assert sink.items == [("bytes", 1, 0, b"behind"), ("message", "verdict")]
    merge.feed(0, fence(3, message=True))
    merge.message(1, "it comes all the same")
    assert sink.items[-1] == ("message", "it comes all the same")
    merge.message(3, "figure")
    assert sink.items[-2:] == [("message", "figure"), ("bytes", 1, 1, b"later")]


def test_a_verdict_without_a_fence_behind_a_message_that_never_comes_can_be_freed() -> None:
    """The worker saw both pipes empty, for the node had read the marks that announce it."""
    sink = Sink()
    merge = merge_into(sink)
    merge.feed(0, owner(1) + fence(1, message=True))
    merge.feed(1, fence(1, message=True))
    merge.message(0, "verdict")
    assert sink.items == []
    assert merge.newest_fence > merge.passed
    merge.give_up(merge.newest_fence)
    assert sink.items == [("message", "verdict")]


def test_at_the_end_everything_is_delivered_and_half_a_mark_is_dropped() -> None:
    sink = Sink()
    merge = merge_into(sink)
    merge.feed(0, owner(1) + fence(1, message=True) + b"held" + owner(1)[:20])
    merge.message(7, "waits for a fence that never comes")
    merge.finish()
    merge.append(1, b"from the page", 1)
    assert sink.items == [
        ("bytes", 1, 0, b"held"),
        ("message", "waits for a fence that never comes"),
        ("bytes", 1, 1, b"from the page"),
    ]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(owner(10), id="an owner that was never given out"),
        pytest.param(fence(2) + fence(2), id="the same fence twice"),
        pytest.param(fence(2) + fence(1), id="a fence that goes back"),
        pytest.param(fence(0), id="fence nought"),
        pytest.param(fence(1, 10), id="a fence with such an owner"),
    ],
)
def test_a_forged_mark_is_a_violation(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="violation"):
        merge_into(Sink()).feed(0, data)


def test_a_forged_floor_is_a_violation() -> None:
    with pytest.raises(RemoteProtocolError, match="floor"):
        merge_into(Sink()).feed(0, b"x", floor=10)


def test_different_fences_in_both_pipes_are_a_violation() -> None:
    merge = merge_into(Sink())
    merge.feed(0, fence(1))
    with pytest.raises(RemoteProtocolError, match="meets"):
        merge.feed(1, fence(2))


def test_messages_for_fences_that_never_come_are_bounded() -> None:
    merge = merge_into(Sink())
    for number in range(MAX_WAITING):
        merge.message(number + 1, "x")
    with pytest.raises(RemoteProtocolError, match="too many"):
        merge.message(MAX_WAITING + 1, "x")


actions = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.sampled_from([0, 1]), st.integers(1, 3), st.binary(min_size=1, max_size=8)),
        st.tuples(st.just("fence"), st.booleans(), st.booleans()),
    ),
    max_size=30,
)


@dataclass
class Made:
    """What an honest worker did: the bytes of both pipes, its messages, and what must be found again."""

    pipes: tuple[bytearray, bytearray] = field(default_factory=lambda: (bytearray(), bytearray()))
    messages: list[tuple[int, str]] = field(default_factory=list)
    written: dict[tuple[int, int], list[tuple[int, bytes]]] = field(default_factory=dict)
    """By epoch (the number of fences before) and stream: owner and bytes."""
    announced: set[int] = field(default_factory=set)


def perform(script: list[tuple[Any, ...]]) -> Made:
    made = Made()
    owners = [0, 0]
    epoch = 0
    for action in script:
        if action[0] == "write":
            _, stream, serial, data = action
            if owners[stream] != serial:
                made.pipes[stream].extend(owner(serial))
                owners[stream] = serial
            made.pipes[stream].extend(data)
            made.written.setdefault((epoch, stream), []).append((serial, data))
        else:
            _, announced, has_message = action
            epoch += 1
            for stream in (0, 1):
                made.pipes[stream].extend(fence(epoch, owners[stream], message=announced))
            if announced:
                made.announced.add(epoch)
            if announced or has_message:
                made.messages.append((epoch, f"m{epoch}"))
    return made


@settings(max_examples=80, deadline=None)
@given(actions, st.data())
def test_any_interleaving_of_reads_and_messages_gives_the_order_of_the_worker(script: Any, data: st.DataObject) -> None:
    made = perform(script)
    sink = Sink()
    merge = merge_into(sink)
    rest = [bytes(pipe) for pipe in made.pipes]
    messages = list(made.messages)
    while rest[0] or rest[1] or messages:
        choices = [choice for choice, left in ((0, rest[0]), (1, rest[1]), (2, messages)) if left]
        choice = data.draw(st.sampled_from(choices))
        if choice == 2:
            merge.message(*messages.pop(0))
        else:
            size = data.draw(st.integers(1, 40))
            merge.feed(choice, rest[choice][:size])
            rest[choice] = rest[choice][size:]
    merge.settle()
    merge.message(0, "end")
    assert sink.items[-1] == ("message", "end")
    check_streams(made, sink)
    check_places(made, sink)


def check_streams(made: Made, sink: Sink) -> None:
    """Each stream has all its bytes, in order and with their owners."""
    for stream in (0, 1):
        expected = [
            (serial, byte)
            for (_, where), pieces in sorted(made.written.items())
            if where == stream
            for serial, piece in pieces
            for byte in piece
        ]
        found = [(item[1], byte) for item in sink.items if item[0] == "bytes" and item[2] == stream for byte in item[3]]
        assert found == expected


def check_places(made: Made, sink: Sink) -> None:
    """All that comes before a fence is delivered before its message; behind an announced one comes nothing earlier."""
    sizes = {key: sum(len(data) for _, data in pieces) for key, pieces in made.written.items()}
    counts = [0, 0]
    for item in sink.items:
        if item[0] == "bytes":
            counts[item[2]] += len(item[3])
        elif item[1] != "end":
            number = int(item[1][1:])
            for stream in (0, 1):
                before = sum(size for (epoch, where), size in sizes.items() if where == stream and epoch < number)
                if number in made.announced:
                    assert counts[stream] == before
                else:
                    assert counts[stream] >= before
    assert [item[1] for item in sink.items if item[0] == "message" and item[1] != "end"] == [
        message for _, message in made.messages
    ]
