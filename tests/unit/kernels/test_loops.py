"""The session's loop: lent to synchronous cells, run between them, and other loops beside it."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable

import pytest

from capsule_kernels.loops import SessionLoop
from tests.unit.kernels.alone import alone


class Readable:
    """A descriptor that a task can make readable."""

    def __init__(self) -> None:
        self.descriptor, self._writer = os.pipe()

    def ready(self) -> None:
        os.write(self._writer, b"x")


def next_descriptor() -> int:
    descriptor = os.open(os.devnull, os.O_RDONLY)
    os.close(descriptor)
    return descriptor


async def answer() -> int:
    await asyncio.sleep(0)
    return 42


@alone
def test_a_fresh_loop_is_not_used() -> None:
    assert not SessionLoop().used


@alone
def test_a_loop_without_descriptors_can_be_lent_and_later_run() -> None:
    before = next_descriptor()
    loop = SessionLoop(opened=False)
    assert next_descriptor() == before
    with loop.lent():
        task = asyncio.create_task(answer())
    loop.open()
    by_a_thread(loop)
    assert loop.run_until_complete(task) == 42


def by_a_task(loop: SessionLoop) -> None:
    with loop.lent():
        loop.tasks = [asyncio.create_task(answer())]  # type: ignore[attr-defined]


def by_a_timer(loop: SessionLoop) -> None:
    loop.call_later(0, print)


def by_a_reader(loop: SessionLoop) -> None:
    loop.add_reader(Readable().descriptor, print)


def by_a_thread(loop: SessionLoop) -> None:
    thread = threading.Thread(target=loop.call_soon_threadsafe, args=(print,))
    thread.start()
    thread.join()


USES: dict[str, Callable[[SessionLoop], None]] = {
    use.__name__: use for use in (by_a_task, by_a_timer, by_a_reader, by_a_thread)
}


@pytest.mark.parametrize("use", sorted(USES))
@alone
def test_whatever_leaves_work_for_the_loop_uses_it(use: str) -> None:
    """A loop that is not used is not run between cells, and the work would wait for ever."""
    loop = SessionLoop()
    loop.used = False
    USES[use](loop)
    assert loop.used


@alone
def test_a_lent_loop_is_the_running_one_and_no_longer() -> None:
    loop = SessionLoop()
    with loop.lent():
        assert asyncio.get_running_loop() is loop
        assert not loop.is_running()
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()


@alone
def test_a_lent_loop_is_taken_back_from_code_that_fails() -> None:
    loop = SessionLoop()
    with pytest.raises(LookupError), loop.lent():
        raise LookupError
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()


@alone
def test_a_task_of_a_lent_loop_goes_on_afterwards() -> None:
    loop, readable = SessionLoop(), Readable()
    found: list[int] = []

    async def work() -> None:
        found.append(await answer())
        readable.ready()

    with loop.lent():
        task = asyncio.create_task(work())
    loop.run_until_readable(readable.descriptor)
    assert found == [42]
    loop.run_once()
    assert task.done()


def run(loop: SessionLoop) -> int:
    return asyncio.run(answer())


def runner(loop: SessionLoop) -> int:
    with asyncio.Runner() as runner:
        return runner.run(answer())


def another_loop(loop: SessionLoop) -> int:
    other = asyncio.new_event_loop()
    try:
        return other.run_until_complete(answer())
    finally:
        other.close()


def the_loop_itself(loop: SessionLoop) -> int:
    return loop.run_until_complete(answer())


def another_loop_for_ever(loop: SessionLoop) -> int:
    other = asyncio.new_event_loop()
    task = other.create_task(answer())
    task.add_done_callback(lambda _task: other.stop())
    other.run_forever()
    other.close()
    return task.result()


NESTED: dict[str, Callable[[SessionLoop], int]] = {
    function.__name__: function for function in (run, runner, another_loop, another_loop_for_ever, the_loop_itself)
}


@pytest.mark.parametrize("nested", sorted(NESTED))
@alone
def test_in_a_synchronous_cell_other_loops_run_and_the_lent_one_is_put_back(nested: str) -> None:
    loop = SessionLoop()
    with loop.lent():
        assert NESTED[nested](loop) == 42
        assert asyncio.get_running_loop() is loop
        assert asyncio.create_task(answer()).get_loop() is loop
    loop.run_once()
    loop.run_once()


@pytest.mark.parametrize("nested", sorted(set(NESTED) - {"the_loop_itself"}))
@alone
def test_in_an_awaiting_cell_other_loops_run_too(nested: str) -> None:
    loop = SessionLoop()

    async def cell() -> int:
        found = NESTED[nested](loop)
        assert asyncio.get_running_loop() is loop
        return found + await answer()

    assert loop.run_until_complete(cell()) == 84


@alone
def test_a_nested_run_that_fails_puts_the_loop_back() -> None:
    async def fail() -> None:
        raise LookupError

    loop = SessionLoop()
    with loop.lent():
        with pytest.raises(LookupError):
            asyncio.run(fail())
        assert asyncio.get_running_loop() is loop


@alone
def test_loops_of_other_threads_are_their_own() -> None:
    found: list[int] = []
    loop = SessionLoop()
    with loop.lent():
        thread = threading.Thread(target=lambda: found.append(asyncio.run(answer())))
        thread.start()
        thread.join()
    assert found == [42]


@alone
def test_asyncio_run_within_asyncio_run_is_refused_as_ever() -> None:
    async def outer() -> None:
        inner = answer()
        try:
            asyncio.run(inner)
        finally:
            inner.close()

    loop = SessionLoop()
    with loop.lent(), pytest.raises(RuntimeError):
        asyncio.run(outer())


@pytest.mark.parametrize("kind", ["SystemExit", "KeyboardInterrupt"])
@alone
def test_a_task_that_exits_ends_itself_and_no_other_task(kind: str) -> None:
    loop, readable = SessionLoop(), Readable()
    found: list[str] = []

    async def leave() -> None:
        raise {"SystemExit": SystemExit, "KeyboardInterrupt": KeyboardInterrupt}[kind]

    async def stay() -> None:
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        found.append("stayed")
        readable.ready()

    with loop.lent():
        leaving, staying = asyncio.create_task(leave()), asyncio.create_task(stay())
    loop.run_until_readable(readable.descriptor)  # ends with the exit
    while not found:
        loop.run_until_readable(readable.descriptor)
    assert leaving.done()
    assert found == ["stayed"]
    loop.run_once()
    assert staying.done()
    with pytest.raises(BaseException, match=""):
        leaving.result()


@alone
def test_a_loop_that_waits_leaves_no_reader_behind() -> None:
    loop, readable = SessionLoop(), Readable()
    readable.ready()
    loop.run_until_readable(readable.descriptor)
    assert not loop.remove_reader(readable.descriptor)


@alone
def test_run_once_gives_each_task_a_step_and_does_not_wait() -> None:
    loop = SessionLoop()
    steps: list[int] = []

    async def count(name: int) -> None:
        while True:
            steps.append(name)
            await asyncio.sleep(0)

    async def wait() -> None:
        await asyncio.sleep(3600)

    with loop.lent():
        tasks = [asyncio.create_task(count(1)), asyncio.create_task(count(2)), asyncio.create_task(wait())]
    loop.run_once()
    loop.run_once()
    assert steps == [1, 2, 1, 2]
    assert not any(task.done() for task in tasks)


@alone
def test_a_signal_wakes_the_loop_even_in_the_moment_before_it_waits() -> None:
    loop = SessionLoop()
    loop.wake_on_signals()
    with pytest.raises(BlockingIOError):
        loop._ssock.recv(1)  # type: ignore[attr-defined]  # what a loop waits on besides its readers
    signal.signal(signal.SIGUSR1, lambda *_: None)
    signal.raise_signal(signal.SIGUSR1)
    assert loop._ssock.recv(1) == bytes([signal.SIGUSR1])  # type: ignore[attr-defined]
