"""The outlet: what stands in the pipes, in which order, whose it is, and what an interrupt may do to it."""

from __future__ import annotations

import linecache
import os
import sys
import threading

import pytest

from capsule_kernels import capture
from capsule_kernels.attribution import OWNER, follow_threads
from capsule_kernels.capture import Outlet
from capsule_protocol.marks import FENCE, FLUSHED, MESSAGE, Mark
from capsule_protocol.page import FLOOR, FLUSHES, HELD, INTERRUPT_SIGNAL, STARTED, TEXT_SIZE
from tests.unit.kernels.alone import alone
from tests.unit.kernels.rig import Pipes

LONG = 30.0


def quiet(pipes: Pipes) -> list[int]:
    """Have the outlet hold text until it is told: no clock, and the wishes for a flush counted."""
    asked: list[int] = []
    pipes.outlet.ask_for_flush = lambda: asked.append(1)
    capture.HOLD = float("inf")  # this process is the test's own
    return asked


@alone
def test_a_short_write_is_held_in_the_page_and_one_flush_is_asked_for() -> None:
    pipes = Pipes()
    asked = quiet(pipes)
    pipes.outlet.begin(1)
    write = pipes.outlet.writer(0)
    for word in ("one ", "two ", "three"):
        assert write(word) == len(word)
    assert pipes.raw(0) == b""
    assert pipes.page.held(0) == b"one two three"
    assert asked == [1]
    pipes.outlet.flush()
    assert pipes.text(0) == b"one two three"
    assert pipes.page.get(HELD[0]) == 0


@alone
def test_a_write_after_a_pause_goes_into_the_pipe_at_once() -> None:
    pipes = Pipes()
    pipes.outlet.writer(0)("x")
    assert pipes.text(0) == b"x"


@alone
def test_a_write_that_the_text_area_cannot_hold_is_not_cut() -> None:
    pipes = Pipes(2**20)
    quiet(pipes)
    write = pipes.outlet.writer(0)
    text = [f"{number:08}" * 1000 for number in range(TEXT_SIZE // 8000 + 2)]
    for piece in text:
        write(piece)
    pipes.outlet.flush()
    assert pipes.text(0) == "".join(text).encode()


@alone
def test_a_large_write_follows_what_was_held() -> None:
    pipes = Pipes(2**20)
    quiet(pipes)
    write = pipes.outlet.writer(1)
    write("held ")
    write("x" * 40_000)
    write(" after")
    pipes.outlet.flush()
    assert pipes.text(1) == b"held " + b"x" * 40_000 + b" after"


@alone
def test_a_flush_tells_its_number_behind_the_text() -> None:
    """A worker killed between the write and the count would else have its text delivered twice."""
    pipes = Pipes()
    quiet(pipes)
    write = pipes.outlet.writer(0)
    for number in range(3):
        write(f"line {number}\n")
        assert pipes.page.get(FLUSHES[0]) == number
        pipes.outlet.flush()
        assert pipes.parts(0) == [f"line {number}\n".encode(), Mark(0, number, FLUSHED)]
    assert pipes.page.get(FLUSHES[0]) == 3
    assert pipes.page.get(FLUSHES[1]) == 0


@alone
def test_a_flush_larger_than_an_atomic_write_is_marked_too() -> None:
    pipes = Pipes(2**20)
    quiet(pipes)
    for _ in range(6):
        pipes.outlet.writer(0)("y" * 1000)
    pipes.outlet.flush()
    assert pipes.parts(0)[-1] == Mark(0, 0, FLUSHED)
    assert pipes.page.get(HELD[0]) == 0


@alone
def test_an_empty_write_leaves_no_trace() -> None:
    pipes = Pipes()
    pipes.outlet.begin(1)
    assert pipes.outlet.writer(0)("") == 0
    pipes.outlet.flush()
    assert (pipes.raw(0), pipes.raw(1)) == (b"", b"")


@alone
def test_text_is_utf_8_and_lone_surrogates_are_escaped() -> None:
    pipes = Pipes()
    write = pipes.outlet.writer(0)
    assert write("é😀\udc80") == 3
    assert pipes.text(0) == "é😀".encode() + rb"\udc80"


@alone
def test_a_cell_that_finds_the_pipes_read_raises_the_floor_and_writes_no_mark() -> None:
    pipes = Pipes()
    pipes.outlet.begin(5)
    assert (pipes.page.get(FLOOR), pipes.page.get(STARTED)) == (5, 5)
    assert (pipes.raw(0), pipes.raw(1)) == (b"", b"")


@pytest.mark.parametrize("stream", [0, 1])
@alone
def test_a_cell_that_finds_something_unread_marks_both_pipes(stream: int) -> None:
    pipes = Pipes()
    pipes.outlet.begin(1)
    pipes.outlet.writer(stream)("unread")
    pipes.outlet.begin(2)
    assert (pipes.page.get(FLOOR), pipes.page.get(STARTED)) == (1, 2)
    assert pipes.marks(1 - stream) == [Mark(2, 0, 0)]
    assert pipes.owned(stream) == {1: b"unread"}


@alone
def test_held_text_belongs_to_the_cell_that_wrote_it() -> None:
    pipes = Pipes()
    quiet(pipes)
    pipes.outlet.begin(1)
    pipes.outlet.writer(0)("first")
    pipes.outlet.begin(2)
    pipes.outlet.writer(0)("second")
    pipes.outlet.flush()
    assert pipes.owned(0) == {1: b"first", 2: b"second"}


@alone
def test_a_fence_without_a_message_stands_only_where_something_is_unread() -> None:
    pipes = Pipes()
    assert pipes.outlet.fence(message=False) == 0
    pipes.outlet.writer(0)("unread")
    assert pipes.outlet.fence(message=False) == 1
    assert pipes.marks(0) == [Mark(0, 1, FENCE)]
    assert pipes.marks(1) == [Mark(0, 1, FENCE)]
    assert pipes.outlet.fence(message=False) == 0


@alone
def test_a_fence_of_a_message_always_stands_in_both_pipes_behind_all_text() -> None:
    pipes = Pipes()
    quiet(pipes)
    pipes.outlet.begin(1)
    for number in (1, 2, 3):
        pipes.outlet.writer(1)("before")
        assert pipes.outlet.fence(message=True) == number
        assert pipes.parts(1) == [b"before", Mark(1, number - 1, FLUSHED), Mark(1, number, FENCE | MESSAGE)]
        assert pipes.marks(0) == [Mark(1, number, FENCE | MESSAGE)]


@alone
def test_a_change_of_the_stream_is_fenced() -> None:
    pipes = Pipes()
    quiet(pipes)
    out, err = pipes.outlet.writer(0), pipes.outlet.writer(1)
    out("1")
    err("2")
    out("3")
    pipes.outlet.flush()
    assert [part for part in pipes.parts(0) if part != Mark(0, 0, FLUSHED)][:3] == [
        b"1",
        Mark(0, 1, FENCE),
        Mark(0, 2, FENCE),
    ]
    assert pipes.parts(1)[:3] == [Mark(0, 1, FENCE), b"2", Mark(0, 0, FLUSHED)]


@alone
def test_what_a_thread_of_an_earlier_cell_writes_is_marked_as_that_cells() -> None:
    follow_threads()
    pipes = Pipes()
    pipes.outlet.begin(1)
    OWNER.set(1)
    go = threading.Event()

    def late() -> None:
        go.wait(LONG)
        pipes.outlet.writer(0)("late")

    thread = threading.Thread(target=late)
    thread.start()
    pipes.outlet.begin(2)
    OWNER.set(2)
    pipes.outlet.writer(0)("a")
    go.set()
    thread.join()
    pipes.outlet.writer(0)("b")
    pipes.outlet.flush()
    assert pipes.owned(0) == {2: b"ab", 1: b"late"}


@alone
def test_lines_of_many_threads_stay_whole_and_none_is_lost() -> None:
    pipes = Pipes(2**20)
    write = pipes.outlet.writer(0)

    def work(name: int) -> None:
        for number in range(500):
            write(f"<{name} {number}>")

    threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    pipes.outlet.flush()
    found = pipes.text(0).decode()
    assert sorted(found.strip("<>").split("><")) == sorted(f"{name} {n}" for name in range(4) for n in range(500))
    for name in range(4):  # and each thread's own lines are in order
        mine = [line for line in found.strip("<>").split("><") if line.startswith(f"{name} ")]
        assert mine == [f"{name} {number}" for number in range(500)]


@alone
def test_a_closed_descriptor_ends_neither_the_code_nor_the_other_stream() -> None:
    pipes = Pipes()
    os.close(pipes.writers[1])
    pipes.outlet.begin(1)
    assert pipes.outlet.writer(1)("lost") == 4
    pipes.outlet.writer(0)("kept")
    pipes.outlet.flush()
    assert pipes.text(0) == b"kept"
    assert pipes.outlet.fence(message=True) == 0


@alone
def test_a_fence_that_only_one_pipe_can_take_is_not_waited_for() -> None:
    pipes = Pipes()
    pipes.outlet.begin(1)
    os.close(pipes.writers[1])
    assert pipes.outlet.fence(message=True) == 0


@alone
def test_a_node_that_is_gone_ends_no_write() -> None:
    pipes = Pipes()
    for reader in pipes.readers:
        os.close(reader)
    assert pipes.outlet.writer(0)("x" * 100_000) == 100_000
    assert pipes.outlet.fence(message=True) == 0


@alone
def test_a_fork_writes_plainly_to_its_descriptors_and_knows_of_no_held_text() -> None:
    pipes = Pipes()
    quiet(pipes)
    pipes.take_descriptors()
    pipes.outlet.begin(1)
    pipes.outlet.writer(0)("held")
    pid = os.fork()
    if pid == 0:
        pipes.outlet.writer(0)("child")
        pipes.outlet.flush()
        os._exit(0)
    os.waitpid(pid, 0)
    assert pipes.parts(0) == [b"child"]
    assert pipes.page.held(0) == b"held"
    pipes.outlet.flush()
    assert pipes.text(0) == b"held"


@alone
def test_the_io_thread_flushes_only_what_has_room() -> None:
    pipes = Pipes(4096)
    quiet(pipes)
    pipes.outlet.writer(0)("held")
    pipes.fill(0)
    pipes.outlet.flush_if_possible()
    assert pipes.page.held(0) == b"held"
    pipes.raw(0)
    pipes.outlet.flush_if_possible()
    assert pipes.text(0) == b"held"


@alone
def test_the_io_thread_does_not_wait_for_a_thread_that_writes() -> None:
    pipes = Pipes()
    quiet(pipes)
    pipes.outlet.writer(0)("held")
    with pipes.outlet._lock:
        thread = threading.Thread(target=pipes.outlet.flush_if_possible, name="capsule-io")
        thread.start()
        thread.join(LONG)
        assert not thread.is_alive()
    assert pipes.page.held(0) == b"held"


@alone
def test_what_the_io_thread_could_not_write_whole_stays_held() -> None:
    pipes = Pipes(8192)
    quiet(pipes)
    text = "".join(f"{number:05}" for number in range(2400))
    for start in range(0, len(text), 6000):
        pipes.outlet.writer(0)(text[start : start + 6000])
    thread = threading.Thread(target=pipes.outlet.flush_if_possible, name="capsule-io")
    thread.start()
    thread.join(LONG)
    written = pipes.raw(0)
    assert 0 < len(written) < len(text)
    assert written + pipes.page.held(0) == text.encode()


@alone
def test_an_interrupt_ends_a_write_into_a_full_pipe() -> None:
    pipes = Pipes(4096)
    pipes.interrupts.install()
    pipes.outlet.begin(1)
    pipes.interrupts.arm(1)
    pipes.fill(0)

    done = threading.Event()

    def act() -> None:
        while not pipes.interrupts.stalled:
            os.sched_yield()
        while not pipes.interrupts.asked:  # again, as the node does: one in the moment before poll does not end it
            pipes.interrupt(1)
            done.wait(0.5)

    thread = threading.Thread(target=act)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        pipes.outlet.writer(0)("x" * 100_000)
    pipes.interrupts.disarm()
    done.set()
    thread.join()
    assert is_free(pipes)
    assert set(pipes.raw(0)) == {ord(".")}


def is_free(pipes: Pipes) -> bool:
    """Whether another thread can take the outlet's lock."""
    found: list[bool] = []
    thread = threading.Thread(target=lambda: found.append(pipes.outlet._lock.acquire(blocking=False)))
    thread.start()
    thread.join()
    return found == [True]


def take(pipes: Pipes, stream: int, size: int) -> None:
    """Read this many bytes from a pipe, no more."""
    while size:
        size -= len(os.read(pipes.readers[stream], size))


@alone
def test_an_interrupt_does_not_part_the_marks_of_a_fence() -> None:
    """It waits until the fence is whole, and comes at the next way out of the capture."""
    pipes = Pipes(4096)
    pipes.interrupts.install()
    pipes.outlet.begin(1)
    pipes.interrupts.arm(1)
    filled = pipes.fill(1)

    def act() -> None:
        while not pipes.marks(0):  # the first mark stands, the second one waits for room
            os.sched_yield()
        pipes.interrupt(1)
        take(pipes, 1, filled)

    thread = threading.Thread(target=act)
    thread.start()
    assert pipes.outlet.fence(message=True) == 1
    thread.join()
    assert pipes.interrupts.pending
    assert pipes.marks(1) == [Mark(1, 1, FENCE | MESSAGE)]
    with pytest.raises(KeyboardInterrupt):
        pipes.outlet.flush()


@alone
def test_another_thread_that_waits_to_write_does_not_let_an_interrupt_part_a_fence() -> None:
    """A wait of another thread says nothing about the main thread's."""
    pipes = Pipes(4096)
    pipes.interrupts.install()
    pipes.outlet.begin(1)
    pipes.interrupts.arm(1)
    filled = pipes.fill(1)
    stalled: list[bool] = []

    def act() -> None:
        while not pipes.marks(0):
            os.sched_yield()
        writer = threading.Thread(target=pipes.outlet.write, args=(0, b"thread"))
        writer.start()
        while not waits_for_the_lock(writer):
            os.sched_yield()
        stalled.append(pipes.interrupts.stalled)
        pipes.interrupt(1)
        take(pipes, 1, filled)
        writer.join()

    thread = threading.Thread(target=act)
    thread.start()
    assert pipes.outlet.fence(message=True) == 1
    thread.join()
    assert stalled == [False]
    assert pipes.interrupts.pending


def waits_for_the_lock(thread: threading.Thread) -> bool:
    frame = sys._current_frames().get(thread.ident or 0)
    if frame is None or frame.f_code.co_name != "_take":
        return False
    return linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip() == "self._lock.acquire()"


@alone
def test_a_second_outlet_is_not_disturbed_by_the_first_ones_signals() -> None:
    """A signal without an armed cell does nothing, even in the middle of a write."""
    pipes = Pipes(2**20)
    pipes.interrupts.install()
    write = pipes.outlet.writer(0)
    for number in range(2000):
        if number % 100 == 0:
            os.kill(os.getpid(), INTERRUPT_SIGNAL)
        write("x")
    pipes.outlet.flush()
    assert pipes.text(0) == b"x" * 2000
    assert isinstance(pipes.outlet, Outlet)
