"""Which execution caused what: threads, pools and tasks carry it on."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from capsule_kernels.attribution import OWNER, owner
from tests.unit.kernels.alone import alone


def in_thread(function: Callable[[], object]) -> None:
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()


@alone
def test_nobody_owns_code_outside_a_cell() -> None:
    assert owner() == 0
    found: list[int] = []
    in_thread(lambda: found.append(owner()))
    assert found == [0]


@alone
def test_a_thread_belongs_to_the_cell_that_starts_it() -> None:
    found: list[int] = []
    OWNER.set(3)
    threads = [threading.Thread(target=lambda: found.append(owner())) for _ in range(2)]
    threads[0].start()
    threads[0].join()
    OWNER.set(4)
    threads[1].start()
    threads[1].join()
    assert found == [3, 4]


@alone
def test_a_thread_keeps_its_cell_when_the_next_one_runs() -> None:
    found: list[int] = []
    go = threading.Event()
    OWNER.set(3)

    def late() -> None:
        go.wait()
        found.append(owner())

    thread = threading.Thread(target=late)
    thread.start()
    OWNER.set(4)
    go.set()
    thread.join()
    assert found == [3]


@alone
def test_threads_of_threads_belong_to_the_same_cell() -> None:
    found: list[int] = []
    OWNER.set(3)
    in_thread(lambda: in_thread(lambda: found.append(owner())))
    assert found == [3]


@alone
def test_timers_and_subclasses_are_threads_too() -> None:
    found: list[int] = []

    class Mine(threading.Thread):
        def run(self) -> None:
            found.append(owner())

    OWNER.set(3)
    mine, timer = Mine(), threading.Timer(0, lambda: found.append(owner()))
    mine.start()
    timer.start()
    mine.join()
    timer.join()
    assert found == [3, 3]


@alone
def test_work_given_to_a_pool_belongs_to_the_cell_that_gives_it() -> None:
    """Not to the cell that made the pool: what it prints would be told as that cell's late output."""
    with ThreadPoolExecutor(1) as pool:
        OWNER.set(3)
        assert pool.submit(owner).result() == 3
        OWNER.set(4)
        assert pool.submit(owner).result() == 4
        assert list(pool.map(lambda _: owner(), range(3))) == [4, 4, 4]


@alone
def test_a_pools_work_has_its_arguments_and_its_error() -> None:
    def work(*arguments: object, **keywords: object) -> object:
        if not arguments:
            raise LookupError("none")
        return arguments, keywords

    with ThreadPoolExecutor(1) as pool:
        OWNER.set(3)
        assert pool.submit(work, 1, fn=2, self=3).result() == ((1,), {"fn": 2, "self": 3})
        assert isinstance(pool.submit(work).exception(), LookupError)


@alone
def test_to_thread_and_run_in_executor_belong_to_the_cell_that_awaits() -> None:
    async def ask() -> tuple[int, int]:
        loop = asyncio.get_running_loop()
        return await asyncio.to_thread(owner), await loop.run_in_executor(None, owner)

    loop = asyncio.new_event_loop()
    for serial in (3, 4):
        OWNER.set(serial)
        assert loop.run_until_complete(ask()) == (serial, serial)
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


@alone
def test_a_task_belongs_to_the_cell_that_makes_it() -> None:
    async def late(found: list[int]) -> None:
        await asyncio.sleep(0)
        found.append(owner())

    async def cell(found: list[int]) -> None:
        OWNER.set(3)
        task = asyncio.create_task(late(found))
        OWNER.set(4)
        await task

    found: list[int] = []
    asyncio.run(cell(found))
    assert found == [3]


@alone
def test_a_thread_with_a_context_of_its_own_is_asked_by_it() -> None:
    found: list[int] = []
    OWNER.set(3)
    context = contextvars.copy_context()
    OWNER.set(4)
    in_thread(lambda: context.run(lambda: found.append(owner())))
    assert found == [3]
