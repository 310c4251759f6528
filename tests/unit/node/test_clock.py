"""The clock of a time-out: what counts while code waits for people, and what does not."""

from __future__ import annotations

import asyncio

import pytest

from capsule.node.clock import Clock, Reading

pytestmark = pytest.mark.anyio


class Work:
    """Code that computes `step` seconds between two looks at it."""

    def __init__(self, step: float) -> None:
        self.step = step
        self.looks = 0
        self.looked = asyncio.Event()

    def used(self) -> float:
        self.looks += 1
        if self.looks > 3:
            self.looked.set()
        return self.looks * self.step


async def test_code_that_waits_uses_nothing_up_and_goes_on_with_what_is_left() -> None:
    expired = asyncio.Event()
    work = Work(0.0)
    clock = Clock(asyncio.get_running_loop(), 0.01, expired.set)
    clock.attend(work.used)
    await work.looked.wait()
    assert not expired.is_set()
    clock.go_on()
    await expired.wait()


async def test_code_that_computes_meanwhile_comes_to_its_end() -> None:
    expired = asyncio.Event()
    work = Work(20.0)
    clock = Clock(asyncio.get_running_loop(), 0.1, expired.set)
    clock.attend(work.used)
    await expired.wait()
    clock.go_on()  # once
    assert work.looks == 2


async def test_what_it_has_computed_counts_when_it_waits_no_more() -> None:
    expired = asyncio.Event()
    work = Work(3600.0)
    clock = Clock(asyncio.get_running_loop(), 7200.0, expired.set)
    clock.attend(work.used)
    clock.attend(work.used)
    clock.pause()
    clock.go_on()
    await expired.wait()


async def test_a_process_that_has_ended_gives_no_time_back() -> None:
    expired = asyncio.Event()
    seconds = iter([5.0, 0.0])
    clock = Clock(asyncio.get_running_loop(), 0.01, expired.set)
    clock.attend(lambda: next(seconds))
    clock.go_on()
    await expired.wait()


async def test_another_process_can_go_on_with_a_clock_that_runs_stands_or_counts_what_is_computed() -> None:
    loop, noted = asyncio.get_running_loop(), list[Reading]()
    begun, work = loop.time(), Work(10.0)
    clock = Clock(loop, 3600.0, noted.clear, noted.append)
    clock.pause()
    clock.go_on()
    clock.attend(work.used)
    clock.cancel()
    runs, stands, goes_on, _, attends, _ = noted
    later = begun + 7200
    assert runs.left(begun + 600, work.used) == pytest.approx(3000, abs=60)
    assert [each.left(later, work.used) for each in (runs, goes_on)] == [0.0, 0.0]
    assert stands.left(later, work.used) == pytest.approx(3600, abs=60)
    assert attends.left(later, lambda: attends.seen + 500) == pytest.approx(3100, abs=60)
    assert attends.left(later, lambda: 0.0) == pytest.approx(3600, abs=60)  # the worker is gone


def test_a_clock_that_stands_with_nothing_left_has_nothing_left() -> None:
    assert Reading(-1.0, float("nan")).left(0.0, float) == 0.0
