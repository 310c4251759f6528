"""The loop on its own thread: values, errors, Ctrl-C, forks, and the end."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from typing import TYPE_CHECKING

import pytest

from capsule import SessionError
from capsule.client.portal import Portal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def portal() -> Iterator[Portal]:
    async def cleanup() -> None:
        pass

    portal = Portal(cleanup)
    yield portal
    portal.stop()


async def double(number: int) -> int:
    await asyncio.sleep(0)
    return 2 * number


def test_a_call_returns_what_the_coroutine_returns(portal: Portal) -> None:
    assert portal.call(double, 21) == 42


def test_a_call_raises_what_the_coroutine_raises(portal: Portal) -> None:
    async def fail() -> None:
        raise KeyError("here")

    with pytest.raises(KeyError, match="here"):
        portal.call(fail)
    assert portal.call(double, 1) == 2


def test_many_threads_may_call_at_once(portal: Portal) -> None:
    results: list[int] = []

    def work() -> None:
        results.extend(portal.call(double, number) for number in range(50))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == sorted(2 * number for number in range(50) for _ in range(8))


def test_ctrl_c_in_the_waiting_thread_cancels_the_work(portal: Portal) -> None:
    cancelled = threading.Event()

    async def wait_for_ever() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    with pytest.raises(KeyboardInterrupt):
        portal.call(wait_for_ever)
    assert cancelled.wait(30)
    assert portal.call(double, 2) == 4


def test_a_wait_that_was_interrupted_can_be_repeated(portal: Portal) -> None:
    go = asyncio.Event()

    async def work() -> str:
        os.kill(os.getpid(), signal.SIGINT)
        await go.wait()
        return "done"

    call = portal.prepare(work)

    def wait() -> str:
        portal.start(call)
        return call.wait()

    with pytest.raises(KeyboardInterrupt):
        wait()
    portal.soon(go.set)
    assert wait() == "done"


def test_a_signal_handler_may_call_while_the_thread_waits(portal: Portal) -> None:
    answers: list[int] = []
    go = asyncio.Event()

    async def work() -> None:
        os.kill(os.getpid(), signal.SIGUSR1)
        await go.wait()

    def handle(signum: int, frame: object) -> None:
        answers.append(portal.call(double, 4))
        portal.soon(go.set)

    before = signal.signal(signal.SIGUSR1, handle)
    try:
        portal.call(work)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert answers == [8]


def test_the_loops_own_thread_cannot_wait_for_itself(portal: Portal) -> None:
    async def nested() -> None:
        portal.call(double, 1)

    with pytest.raises(SessionError, match="own thread"):
        portal.call(nested)


def test_a_fork_is_told_so_and_leaves_the_parent_alone(portal: Portal) -> None:
    assert in_a_fork(lambda: refusal(portal)) == b"this client belongs to process"
    assert in_a_fork(lambda: stopped(portal)) == b"stopped"
    assert portal.call(double, 3) == 6


def test_stopping_runs_the_cleanup_and_ends_the_thread() -> None:
    order: list[str] = []

    async def cleanup() -> None:
        await asyncio.sleep(0)
        order.append("cleanup")

    portal = Portal(cleanup)
    threads = threading.active_count()
    portal.stop()
    order.append("stopped")
    portal.stop()
    assert order == ["cleanup", "stopped"]
    assert threading.active_count() == threads - 1
    portal.soon(order.append, "never")
    with pytest.raises(SessionError, match="the client is closed") as caught:
        portal.call(double, 1)
    assert caught.value.code == "client_closed"
    assert len(order) == 2


def test_what_the_cleanup_raises_reaches_the_caller() -> None:
    async def cleanup() -> None:
        raise OSError("disk")

    portal = Portal(cleanup)
    with pytest.raises(OSError, match="disk"):
        portal.stop()


def test_a_call_that_the_end_overtakes_raises() -> None:
    async def cleanup() -> None:
        pass

    portal = Portal(cleanup)
    begun = threading.Event()
    errors: list[SessionError] = []

    async def wait_for_ever() -> None:
        begun.set()
        await asyncio.Event().wait()

    def work() -> None:
        with pytest.raises(SessionError) as caught:
            portal.call(wait_for_ever)
        errors.append(caught.value)

    thread = threading.Thread(target=work)
    thread.start()
    assert begun.wait(30)
    portal.stop()
    thread.join(30)
    assert [error.code for error in errors] == ["client_closed"]


def refusal(portal: Portal) -> bytes:
    try:
        portal.call(double, 1)
    except SessionError as error:
        return error.message[:30].encode()
    return b"no error"


def stopped(portal: Portal) -> bytes:
    portal.stop()
    return b"stopped"


def in_a_fork(function: Callable[[], bytes]) -> bytes:
    """What a function returns in a forked child."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(write, function())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(pid, 0)
    return answer
